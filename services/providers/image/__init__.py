"""What every provider of images shares."""
