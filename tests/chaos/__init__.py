"""Chaos on three real brokers: what happens to a group of `ksim consume` processes, and a judge."""
