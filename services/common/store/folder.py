"""Objects as files of a folder on this machine."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import msgspec

from services.common.errors import NotFound, StorageFailed
from services.common.store.failing import failed
from services.common.store.model import CHUNK_BYTES, ObjectInfo, Opened
from services.common.store.names import check_name, is_name


class _Notes(msgspec.Struct):
    content_type: str
    metadata: dict[str, str]


_NOTES = msgspec.json.Decoder(_Notes)


class FolderStore:
    """A store in a folder: the files themselves, and under `.notes` what their names cannot say.

    A file appears by a rename, so a reader sees all of it or none. Its notes are written before, and a file without
    them is served as plain bytes.

    Args:
        folder: Made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes = folder / ".notes"
        self._coming = folder / ".coming"

    async def put(
        self,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Store an object; see `Store.put`."""
        if not is_name(name):
            raise ValueError(f"not an object's name: {name!r}")
        notes = _Notes(content_type, {key.lower(): value for key, value in (metadata or {}).items()})
        coming = self._coming / secrets.token_hex(8)
        file = await _run("put", self._create, coming)
        try:
            with file:
                if isinstance(data, bytes):
                    await _run("put", file.write, data)
                else:
                    async for chunk in data:
                        await _run("put", file.write, chunk)
                await _run("put", _sync, file)
            await _run("put", self._publish, coming, name, notes)
        except BaseException:
            # Not awaited: this runs on cancellation too.
            coming.unlink(missing_ok=True)
            raise
        return await _run("put", self._info, name)

    def _create(self, path: Path) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")

    def _publish(self, coming: Path, name: str, notes: _Notes) -> None:
        self._notes.mkdir(parents=True, exist_ok=True)
        beside = coming.with_suffix(".json")
        beside.write_bytes(msgspec.json.encode(notes))
        beside.replace(self._notes / f"{name}.json")
        coming.replace(self._folder / name)

    def _info(self, name: str) -> ObjectInfo:
        path = self._folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise NotFound("no such object") from None
        notes = _Notes("application/octet-stream", {})
        with suppress(FileNotFoundError, msgspec.DecodeError):
            notes = _NOTES.decode((self._notes / f"{name}.json").read_bytes())
        return ObjectInfo(
            name=name,
            size_bytes=stat.st_size,
            content_type=notes.content_type,
            etag=f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
            modified=datetime.fromtimestamp(stat.st_mtime, UTC),
            metadata=notes.metadata,
        )

    async def head(self, name: str) -> ObjectInfo:
        """Describe an object; see `Store.head`."""
        check_name(name)
        return await _run("head", self._info, name)

    @asynccontextmanager
    async def open(self, name: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[Opened]:
        """Read an object or a range of it; see `Store.open`."""
        info = await self.head(name)
        first = min(max(0, start), info.size_bytes)
        after = info.size_bytes if stop is None else min(max(first, stop), info.size_bytes)
        with await _run("open", self._open, name) as file:
            yield Opened(info, first, after, _chunks(file, first, after))

    def _open(self, name: str) -> BinaryIO:
        try:
            return (self._folder / name).open("rb")
        except FileNotFoundError:
            raise NotFound("no such object") from None

    async def delete(self, name: str) -> None:
        """Remove an object; see `Store.delete`."""
        check_name(name)
        for path in (self._folder / name, self._notes / f"{name}.json"):
            await _run("delete", partial(path.unlink, missing_ok=True))

    async def aclose(self) -> None:
        """Do nothing: no connection is held."""


async def _chunks(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    await _run("read", file.seek, start)
    left = stop - start
    while left:
        chunk = await _run("read", file.read, min(CHUNK_BYTES, left))
        if not chunk:
            raise StorageFailed("the stored object is incomplete")
        left -= len(chunk)
        yield chunk


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


P = ParamSpec("P")
T = TypeVar("T")


async def _run(operation: str, call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Run a blocking call in a thread. Raises StorageFailed for what the system refuses."""
    try:
        return await asyncio.to_thread(call, *given, **named)
    except OSError as error:
        raise failed(operation, error.strerror or type(error).__name__) from error
