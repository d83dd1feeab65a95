"""The simulated cluster: the only room with SimPy and greenlets."""
