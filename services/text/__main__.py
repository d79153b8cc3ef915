"""Run the text service: `python -m services.text`; `python -m services.text check` tries its providers.

It answers what modules of its package declare as their `OFFER`.
"""

from __future__ import annotations

from services import text
from services.common import memory
from services.providers.hosting.service import Providing, offers_of
from services.text.settings import TextSettings

SERVICE = Providing(name="text", settings=TextSettings, offers=offers_of(text))

if __name__ == "__main__":
    memory.give_back_freed()
    SERVICE.main()
