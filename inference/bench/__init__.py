"""Measurements of the image engine beside plain diffusers."""
