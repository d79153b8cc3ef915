"""Moa on one machine, without containers."""
