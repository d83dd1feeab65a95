"""Planted errors: `python -m tests.canary NAME -- KSIM-ARGUMENTS` runs the real command line."""
