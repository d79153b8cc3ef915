"""Where auth keeps things: PostgreSQL."""
