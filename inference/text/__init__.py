"""Text: a causal language model behind one loop that decodes all running answers together."""
