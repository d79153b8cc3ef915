"""The task service's ways out: PostgreSQL, the router, the desk, quota, callers' URLs."""
