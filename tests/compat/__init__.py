"""Client libraries and applications as they are published, each in an environment of its own, against the gateway."""
