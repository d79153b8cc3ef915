"""Durable tasks: long work that goes on when the caller leaves, is never lost, and is charged at most once."""
