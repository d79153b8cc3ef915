"""Fetch one archive from the package index that pip is set up for, and go on where an earlier try broke off."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import http.client
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
_PIP_S: Final = 600
_SILENCE_S: Final = 30
_TRIES: Final = 5
BACKOFF_S = 0.5
_BLOCK_BYTES: Final = 1 << 18
_OF_THE_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO)

Heard = Callable[[int, int], None]
"""Told the bytes that are here and the bytes of all."""


class DownloadError(Exception):
    """An archive cannot be had. The message is for the caller.

    Args:
        output: What a tool said about it, for the log.
    """

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output[-500:]


class BrokenOff(DownloadError):
    """The bytes stopped coming, or never came."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the body; another process that holds it is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def archive_url(name: str, version: str, archive: str) -> str:
    """Ask pip where its index has an archive. Raises DownloadError when it has not, or cannot be reached."""
    asked = ("install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet")
    done = _pip(*asked, "--report", "-", f"{name}=={version}")
    if done.returncode != 0:
        why = "the package index has no such version, or cannot be reached (is this machine offline?)"
        raise DownloadError(f"package {name} {version} could not be fetched: {why}", output=done.stderr)
    try:
        url = str(json.loads(done.stdout)["install"][0]["download_info"]["url"])
    except (ValueError, LookupError, TypeError):
        raise DownloadError("pip did not tell where the package is", output=done.stdout) from None
    if unquote(urlsplit(url).path).rpartition("/")[2] != archive:
        raise DownloadError(f"the package index has another archive than {archive}", output=url)
    return url


def download_by_pip(name: str, version: str, archive: str, part: Path, sha256: str) -> None:
    """Make `part` the archive as pip fetches it, from its beginning: pip knows credentials that a link does not have.

    Raises DownloadError when pip cannot, or it is another file than the pinned one.
    """
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        done = _pip("download", "--no-deps", "--only-binary", ":all:", "--quiet", "-d", folder, f"{name}=={version}")
        if done.returncode != 0 or not Path(folder, archive).exists():
            raise DownloadError("the package index broke off again and again", output=done.stderr)
        Path(folder, archive).replace(part)
    _verify(part, sha256)


def download(url: str, part: Path, sha256: str, heard: Heard, stopping: threading.Event) -> None:
    """Make `part` the archive at `url`; what it has of it already is kept.

    Raises BrokenOff when some tries in a row bring nothing, DownloadError when it is another file than the pinned one
    or `stopping` is set.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    opener = _opener()
    tries, error = 0, None
    while tries < _TRIES:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _append(opener, url, part, heard, stopping):
                break
        except (OSError, http.client.HTTPException) as failure:
            if isinstance(failure, OSError) and failure.errno in _OF_THE_DISK:
                raise
            error = failure
        came = part.exists() and part.stat().st_size > before
        tries = 1 if came else tries + 1
        if stopping.wait(min(8.0, BACKOFF_S * 2**tries)):
            raise DownloadError("the gateway stopped; the next start goes on")
    else:
        raise BrokenOff("the package index broke off again and again", output=str(error))
    _verify(part, sha256)


def _append(
    opener: urllib.request.OpenerDirector, url: str, part: Path, heard: Heard, stopping: threading.Event
) -> bool:
    """Fetch what `part` lacks; tell whether it is whole. A server without ranges starts over."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310  # pip's own
    try:
        answer = opener.open(request, timeout=_SILENCE_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return True  # all of it is here; its hash will tell
            raise
    with answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT
        have = have if goes_on else 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(_BLOCK_BYTES):
                file.write(block)
                have += len(block)
                heard(have, total)
                if stopping.is_set():
                    raise DownloadError("the gateway stopped; the next start goes on")
    return have >= total


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener with the certificates and the proxy of pip's settings, else the system's."""
    pip_settings = _settings()
    context = ssl.create_default_context(cafile=pip_settings.get("cert"))
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if proxy := pip_settings.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


@functools.cache
def _settings() -> dict[str, str]:
    """Return pip's settings; of one that is set at several places the strongest, which pip lists last."""
    found = {}
    for line in _pip("config", "list").stdout.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = value.strip("'\"")
    return found


def _verify(part: Path, sha256: str) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise DownloadError("the package is not the one that is pinned")


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([*_PIP, *arguments], capture_output=True, text=True, check=False, timeout=_PIP_S)  # noqa: S603
    except (subprocess.TimeoutExpired, OSError) as error:
        return subprocess.CompletedProcess(arguments, 1, "", str(error))
