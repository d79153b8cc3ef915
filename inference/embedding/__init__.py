"""Embeddings: texts to vectors, in batches by tokens."""
