"""The documented desk styling API."""
