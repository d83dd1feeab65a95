"""Core messages to Kafka's bytes and back."""
