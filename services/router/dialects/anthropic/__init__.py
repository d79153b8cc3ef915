"""The Anthropic dialect: the Messages API, its count of tokens, and its form of the list of models."""
