"""Random scenarios, many at a time, and the smallest ones that fail."""
