"""What adapters of embedding models have in common."""
