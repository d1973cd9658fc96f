"""The ways out: durable consumers that hand messages to an upstream."""
