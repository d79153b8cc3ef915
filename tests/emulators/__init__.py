"""Providers' services as tests meet them: they check what they are sent as strictly as the real ones do."""
