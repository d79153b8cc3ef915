"""Images that callers give as links: this gateway's own from the store, all others through the egress guard."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from services.common import images
from services.common.egress import Egress, NotHttps
from services.common.errors import InvalidField, NotFound, PermissionDenied, TooLarge
from services.common.store import Links, Store
from services.common.store.names import owns

FETCH_S = 20.0
"""How long a link may take in all, redirects included."""


class Inputs:
    """Reads the images behind links."""

    def __init__(self, *, egress: Egress, store: Store, links: Links) -> None:
        self._egress = egress
        self._store = store
        self._links = links

    async def read(self, url: str, *, account_id: str, param: str) -> tuple[bytes, str]:
        """Return the bytes and the MIME type of the image that a link names, its kind and size judged by its content.

        A link of this gateway is read without a detour by its owner, and by anybody while its signature holds. Raises
        InvalidField, TooLarge, UnsupportedMedia, UpstreamTimeout or UpstreamFailed, each naming `param`.
        """
        name = self._links.name_of(url)
        if name is not None:
            data = await self._own(name, url, account_id, param)
        else:
            try:
                self._egress.check(url, param=param)
            except NotHttps:
                raise InvalidField(f"{param}: an https link or a data: URI is expected", param=param) from None
            fetched = await self._egress.fetch(url, limit_bytes=images.MAX_BYTES, timeout_s=FETCH_S, param=param)
            data = fetched.data
        info = images.inspect(data, param=param)
        return data, info.mime_type

    async def _own(self, name: str, url: str, account_id: str, param: str) -> bytes:
        if not owns(account_id, name):
            given = {key: values[-1] for key, values in parse_qs(urlsplit(url).query).items()}
            try:
                self._links.check(name, expires=given.get("expires", ""), signature=given.get("signature", ""))
            except PermissionDenied as error:
                raise InvalidField(f"{param}: {error.message}", param=param) from None
        try:
            async with self._store.open(name) as opened:
                if opened.info.size_bytes > images.MAX_BYTES:
                    raise TooLarge(f"{param}: at most {images.MAX_BYTES >> 20} MB are taken", param=param)
                return b"".join([chunk async for chunk in opened.chunks])
        except NotFound:
            raise InvalidField(f"{param}: no such file", param=param) from None
