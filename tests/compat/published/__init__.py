"""The tests that vendors publish with their clients."""
