"""The documented task API."""
