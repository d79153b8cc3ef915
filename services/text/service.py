"""The text service: what modules of its package declare as their `OFFER`."""

from __future__ import annotations

from typing import Final

from services import text
from services.providers.hosting.service import Providing, offers_of
from services.text.settings import TextSettings

SERVICE: Final = Providing(name="text", settings=TextSettings, offers=offers_of(text))
