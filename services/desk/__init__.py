"""The desk pipeline: look at a desk, make it nicer, and find what lies on it in shops."""
