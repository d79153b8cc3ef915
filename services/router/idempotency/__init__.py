"""Requests that callers gave a key, so that asking again gives the same answer and is charged once."""
