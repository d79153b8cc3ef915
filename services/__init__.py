"""Moa's services: one process each, that meet only over gRPC."""
