"""The task contract in its own JSON."""
