"""Fetch the images that requests name by links: bounded by request, account and process.

Whoever asks has been admitted: quota is set aside before anything is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from moa.common.v1 import media_pb2
from services.common import images
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import TooLarge, Unavailable
from services.common.rpc import call as calls
from services.router.domain.ports import Linked

AN_ACCOUNT_AT_ONCE: Final = 4
"""How many links of one account are fetched at once in this process."""
A_REQUEST_BYTES: Final = 32 * 2**20
"""How many bytes the links of one request may come to."""
A_PROCESS_BYTES: Final = 256 * 2**20
"""How many bytes of links this process fetches or holds for requests that have not been sent on yet."""
WAIT_S: Final = 20.0
"""How long a link waits for its turn."""


class LinkReader(Protocol):
    """Who reads one link."""

    async def read(self, url: str, *, account_id: str, param: str) -> tuple[bytes, str]:
        """Return the bytes and the MIME type of the image behind a link."""


class Fetching:
    """Fetches links within its bounds; those that find no room wait.

    Args:
        reader: Who reads one link.
        process_bytes: As `A_PROCESS_BYTES`.
        wait_s: As `WAIT_S`.
    """

    def __init__(self, reader: LinkReader, *, process_bytes: int = A_PROCESS_BYTES, wait_s: float = WAIT_S) -> None:
        self._reader = reader
        self._wait_s = wait_s
        self._room = self._most = process_bytes
        self._waiting: list[asyncio.Future[None]] = []
        self._by_account: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is fetched or held, for nobody."""
        return self._room == self._most and not self._by_account

    @asynccontextmanager
    async def fetched(self, linked: Sequence[Linked], *, account_id: str, owner: str) -> AsyncIterator[None]:
        """Put the images in the place of their links; their bytes count as this process's until the block is left.

        Args:
            linked: The images, which are changed.
            account_id: Whose turn it is.
            owner: Whose files may be read without a signed link; empty: nobody's.

        Raises TooLarge, Unavailable, and what the reader raises, each naming its field.
        """
        held = 0
        tasks: list[asyncio.Task[int]] = []

        async def one(param: str, image: media_pb2.ImageInput) -> int:
            nonlocal held
            await self._enter(account_id, param)
            taken = images.MAX_BYTES
            try:
                data, image_type = await self._reader.read(image.url, account_id=owner, param=param)
                self._leave(account_id, images.MAX_BYTES - len(data))
                taken = 0
                held += len(data)
                if held > A_REQUEST_BYTES:
                    raise TooLarge(
                        f"{param}: the images that a request links to may come to {A_REQUEST_BYTES >> 20} MB together;"
                        " make them smaller, or send several requests",
                        param=param,
                    )
                image.data, image.mime_type = data, image_type
                calls.fetched(len(data))
            finally:
                if taken:
                    self._leave(account_id, taken)
            return len(data)

        try:
            tasks = [asyncio.create_task(one(param, image)) for param, image in linked]
            await asyncio.gather(*tasks)
            yield
        finally:
            await cancel_and_wait(*tasks, again_s=CLEANING_S)
            self._give(held)

    async def _enter(self, account_id: str, param: str) -> None:
        """Wait for a turn of the account and for room of the process, and take both."""
        try:
            async with asyncio.timeout(self._wait_s):
                while not self._has_room(account_id):
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(waiter)
                    await waiter
        except TimeoutError:
            raise Unavailable(
                f"{param}: too many linked images are being fetched now; send it inline, or try again",
                param=param,
                retry_after_s=2.0,
            ) from None
        self._by_account[account_id] = self._by_account.get(account_id, 0) + 1
        self._room -= images.MAX_BYTES

    def _has_room(self, account_id: str) -> bool:
        return self._room >= images.MAX_BYTES and self._by_account.get(account_id, 0) < AN_ACCOUNT_AT_ONCE

    def _leave(self, account_id: str, unused: int) -> None:
        """Release the turn, and the room that the image did not take."""
        left = self._by_account.pop(account_id) - 1
        if left:
            self._by_account[account_id] = left
        self._give(unused)

    def _give(self, size: int) -> None:
        self._room += size
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
