"""Deterministic simulation and production consumption of Kafka consumer groups."""
