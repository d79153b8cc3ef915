"""Anthropic: Claude, asked where it is made."""
