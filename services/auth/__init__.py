"""Accounts, keys, permissions, and the quota ledger."""
