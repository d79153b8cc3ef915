"""Run the text service: `python -m services.text`; `python -m services.text check` tries its providers."""

from __future__ import annotations

from services.common import memory
from services.text.service import SERVICE

if __name__ == "__main__":
    memory.give_back_freed()
    SERVICE.main()
