"""What auth decides, without a database or a network."""
