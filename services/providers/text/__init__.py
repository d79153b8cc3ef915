"""What every provider of text shares."""
