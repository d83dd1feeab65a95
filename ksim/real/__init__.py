"""The real world: sockets, clocks and the one owner thread of a consumer in production."""
