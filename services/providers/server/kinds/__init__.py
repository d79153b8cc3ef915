"""What each kind of server tells of its models, beside their list."""
