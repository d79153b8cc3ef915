"""Signed links to objects, which end by themselves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from urllib.parse import unquote, urlsplit

from services.common.errors import PermissionDenied
from services.common.store.names import is_name

PATH = "/files/"
"""Where the public URL serves objects."""


class Links:
    """Makes and checks links `{public_url}/files/{name}?expires=…&signature=…`.

    Whoever holds a link may read its one object until it expires. Other paths are signed alike: an object's name has no
    slash, so that no signature is good for both. A link names the public URL, never what a request
    said its host was.

    Args:
        public_url: Where callers reach this gateway.
        secret: The key of the signatures; a change ends every link.
        ttl_s: How long a link lasts.
    """

    def __init__(self, public_url: str, secret: str, *, ttl_s: int) -> None:
        self.public_url = public_url.rstrip("/")
        self._base = self.public_url + PATH
        self._secret = hmac.digest(secret.encode(), b"moa object link", hashlib.sha256)
        self._ttl_s = ttl_s

    def make(self, name: str, *, now_s: float | None = None) -> str:
        """Return a fresh absolute link to an object."""
        return f"{self._base}{name}?{self._stamp(name, now_s)}"

    def signed(self, path: str, *, now_s: float | None = None) -> str:
        """Return a fresh absolute link to another path, which begins with `/`; `check` is given the path."""
        return f"{self.public_url}{path}?{self._stamp(path, now_s)}"

    def check(self, name: str, *, expires: str, signature: str, now_s: float | None = None) -> None:
        """Raise PermissionDenied unless this is a link that `make` gave and that has not expired."""
        expected = self._signature(name, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise PermissionDenied("this link is not valid", param="signature")
        if int(expires) <= (time.time() if now_s is None else now_s):
            raise PermissionDenied("this link has expired", param="expires")

    def name_of(self, url: str) -> str | None:
        """Return the object that a link of this gateway names; None for any other URL. The signature is not checked."""
        try:
            base, given = urlsplit(self._base), urlsplit(url)
        except ValueError:
            return None  # no URL at all
        if (given.scheme, given.netloc.lower()) != (base.scheme, base.netloc.lower()):
            return None
        if not given.path.startswith(base.path):
            return None
        name = unquote(given.path.removeprefix(base.path))
        return name if is_name(name) else None

    def _stamp(self, name: str, now_s: float | None) -> str:
        expires = str(int((time.time() if now_s is None else now_s) + self._ttl_s))
        return f"expires={expires}&signature={self._signature(name, expires)}"

    def _signature(self, name: str, expires: str) -> str:
        digest = hmac.digest(self._secret, f"{name}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
