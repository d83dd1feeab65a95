"""The pure machines: one fact and the time in, orders out. No clock, entropy, IO or thread."""
