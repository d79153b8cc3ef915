"""Ways to run Moa."""
