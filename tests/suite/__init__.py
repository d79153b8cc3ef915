"""How the suite runs: groups with a budget of seconds, long files first, several workers."""
