"""Measure the gateway against the same upstream called directly, in one run on one machine."""
