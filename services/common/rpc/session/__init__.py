"""Calls of another service over one long-lived stream (`proto/moa/session`)."""
