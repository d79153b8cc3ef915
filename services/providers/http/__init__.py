"""Speaking HTTP to providers: connections, event streams, credentials, and failures as typed errors."""
