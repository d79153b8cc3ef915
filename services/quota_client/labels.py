"""What reports of spending group a request by beside its key and its model: the dialect it came in, and its tags."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

USER_PREFIX: Final = "user:"
"""What stands before the `user` of a request, which is a tag too."""
LONGEST_USER_BYTES: Final = 64
"""A longer `user` is replaced by its digest, as long as this."""
MOST_TAGS: Final = 9
"""A request's own, and its user."""


class Labels(NamedTuple):
    """What a request is called in reports."""

    dialect: str = ""
    """The dialect, by its name in `services.common.dialects`; `grpc` for the gRPC API."""
    tags: tuple[str, ...] = ()
    """In order, each once."""

    def of_user(self, user: str) -> Labels:
        """Return these with the request's `user` among the tags."""
        if not user:
            return self
        data = user.encode("utf-8", "surrogatepass")
        if len(data) > LONGEST_USER_BYTES or not user.isprintable():
            user = hashlib.sha256(data).hexdigest()
        return self._replace(tags=tuple(sorted({*self.tags, USER_PREFIX + user})))

    def header(self) -> str:
        """Return these as `read` takes them, for the metadata of a call."""
        return ",".join([self.dialect, *[quote(tag, safe="") for tag in self.tags]])


NO_LABELS: Final = Labels()


def labelled(dialect: str, tags: Iterable[str]) -> Labels:
    """Return the labels of a request."""
    return Labels(dialect, tuple(sorted(tags)))


def read(header: str) -> Labels:
    """Return what a call's metadata says of its request; nothing where it says nothing."""
    dialect, *tags = header.split(",")
    return Labels(dialect, tuple(unquote(tag) for tag in tags))
