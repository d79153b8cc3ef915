"""What every service shares: errors, settings, logs, metrics, the catalogue, and gRPC plumbing."""
