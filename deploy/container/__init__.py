"""Containers: the images, and their trial."""
