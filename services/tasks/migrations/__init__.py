"""The schema `tasks`, step by step."""
