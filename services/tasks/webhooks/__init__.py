"""Webhooks: written with what they report, signed, delivered until the receiver has them or time is up."""
