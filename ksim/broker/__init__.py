"""Broker answers besides the group protocol; pure as the core is, driven by sim and serve."""
