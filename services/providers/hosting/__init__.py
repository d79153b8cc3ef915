"""What the services that host providers have in common: their start, their targets, and the check of credentials."""
