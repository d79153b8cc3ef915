"""Callers' images: `data:` URIs, the gateway's own links, and https through the egress guard."""

from __future__ import annotations

import binascii
from typing import Final

from moa.common.v1 import media_pb2
from services.common import images
from services.common.egress import Egress
from services.common.errors import InvalidField, NotFound, TooLarge
from services.common.store import Links, Store
from services.common.store.names import owns

PARAM: Final = "initial_image_url"
TIMEOUT_S: Final = 20.0


class Fetcher:
    """Reads images that callers name."""

    def __init__(self, egress: Egress, store: Store, links: Links) -> None:
        self._egress = egress
        self._store = store
        self._links = links

    async def image(self, url: str, account_id: str) -> media_pb2.ImageInput:
        """Return an image's bytes, of an allowed kind and size. Raises MoaError naming the field."""
        name = self._links.name_of(url)
        if url.startswith("data:"):
            data = _decoded(url)
        elif name is not None:
            data = await self._own(name, account_id)
        else:
            fetched = await self._egress.fetch(url, limit_bytes=images.MAX_BYTES, timeout_s=TIMEOUT_S, param=PARAM)
            data = fetched.data
        info = images.inspect(data, param=PARAM)
        return media_pb2.ImageInput(data=data, mime_type=info.mime_type)

    async def _own(self, name: str, account_id: str) -> bytes:
        if not owns(account_id, name):
            raise NotFound("no such image", param=PARAM)
        async with self._store.open(name) as opened:
            if opened.info.size_bytes > images.MAX_BYTES:
                raise TooLarge(f"an image may have at most {images.MAX_BYTES >> 20} MB", param=PARAM)
            return b"".join([chunk async for chunk in opened.chunks])


def _decoded(url: str) -> bytes:
    head, _, encoded = url.partition(",")
    if not head.rstrip().lower().endswith(";base64"):
        raise InvalidField(f"{PARAM}: a data: URI must carry base64", param=PARAM)
    try:
        return binascii.a2b_base64("".join(encoded.split()), strict_mode=True)
    except ValueError:
        raise InvalidField(f"{PARAM}: not valid base64", param=PARAM) from None
