"""Run the image service: `python -m services.image`; `python -m services.image check` tries its providers.

It answers what modules of its package declare as their `OFFER`.
"""

from __future__ import annotations

from services import image
from services.common import memory
from services.image.settings import ImageSettings
from services.providers.hosting.service import Providing, offers_of

SERVICE = Providing(name="image", settings=ImageSettings, offers=offers_of(image))

if __name__ == "__main__":
    memory.give_back_freed()
    SERVICE.main()
