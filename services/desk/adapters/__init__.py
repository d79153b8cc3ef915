"""The pipeline's ways out: vision, the router, shops, callers' images."""
