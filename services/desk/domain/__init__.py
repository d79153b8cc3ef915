"""What the pipeline decides: its stages, its words, its items. Knows no network."""
