"""Addresses of e-mail, as far as they are looked at."""

from __future__ import annotations

import re
from typing import Final

EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")
"""Whether there is such a mailbox only a mail tells."""
