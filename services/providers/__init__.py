"""Who runs models: one folder a vendor, with its authority, its errors, and what it makes.

The text and image services host them; nothing else imports them.
"""
