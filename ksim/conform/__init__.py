"""The coordinator against a real broker, request by request."""
