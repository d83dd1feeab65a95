"""The simulated cluster on real sockets: any Kafka client can talk to it."""
