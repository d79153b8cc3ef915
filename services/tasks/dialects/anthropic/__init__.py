"""Batches of messages in the task service: Anthropic's Message Batches API."""
