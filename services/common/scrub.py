"""Take secrets out of text that leaves a process: errors, log lines and traces pass `scrub`, whoever wrote the text.

A provider may repeat what it was sent, in its own words and encodings. A process's secrets are told to this module
where they are read (`know`, `renewed`, `of_call`); what only looks like a key is taken out too. Answers of models do
not come here: a model does not see credentials, and a caller may want to talk about keys.
"""

from __future__ import annotations

import base64
import html
import json
import re
import string
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus, urlsplit

HIDDEN: Final = "[redacted]"
"""What stands in a secret's place."""
LEAST: Final = 8
"""Shorter secrets are not looked for: anybody guesses them, and they are parts of ordinary words."""
_PROBE: Final = 12
"""So many of a secret's first characters are taken for it: texts are cut off in the middle of one."""
_KEPT: Final = 3
"""Secrets of one source that are known at once; one that was replaced may still be in an answer under way."""

_SHORT: Final = 64
"""Texts up to this length, in characters, are remembered with their outcome."""

_Needle = tuple[str, str]
"""How one spelling of a secret begins, and the whole of it, both in lower case."""

_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""Lower case of ASCII alone: unlike `str.lower` it keeps every character in its place."""

_HEX: Final = "0123456789abcdef-"

_VALUE: Final = r"[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|sso-key)\s+)?[A-Za-z0-9._~+/=%-]{12,}"


def _shape(hint: str, pattern: str) -> tuple[str, re.Pattern[str]]:
    return hint, re.compile(pattern, re.IGNORECASE)


_SHAPES: Final = (
    # Each with what a text must hold, in lower case, to be worth a search.
    _shape("sk-", r"(?<![a-z0-9])sk-[a-z0-9_-]{16,}"),
    _shape("moa-", r"(?<![a-z0-9])moa-[a-z0-9_-]{40,}"),
    _shape("dk-", r"(?<![a-z0-9])dk-[a-z0-9_-]{40,}"),
    _shape("aiza", r"aiza[a-z0-9_-]{24,}"),
    _shape("ya29.", r"ya29\.[a-z0-9_.-]{16,}"),
    _shape("akia", r"(?<![a-z0-9])akia[a-z0-9]{12,}"),
    _shape("asia", r"(?<![a-z0-9])asia[a-z0-9]{16,}"),
    _shape("absk", r"(?<![a-z0-9])absk[a-z0-9+/=]{32,}"),
    _shape("bedrock-api-key-", r"bedrock-api-key-[a-z0-9+/=_-]{16,}"),
    _shape("hf_", r"(?<![a-z0-9])hf_[a-z0-9]{20,}"),
    _shape("gh", r"(?<![a-z0-9])gh[pousr]_[a-z0-9]{30,}"),
    _shape("eyj", r"eyj[a-z0-9_-]{8,}\.[a-z0-9_-]{8,}(?:\.[a-z0-9_-]*)?"),
    # A word after "basic" that has a digit or padding is no English.
    _shape("basic", r"(?<=basic )(?=[a-z+/_-]*[0-9=])[a-z0-9+/_-]{12,}=*"),
    _shape("bearer", r"(?<=bearer )(?=[a-z._~+/-]*[0-9=])[a-z0-9._~+/-]{12,}=*"),
    _shape("key", rf"(?:api|access|secret|account|subscription)[-_ ]?key{_VALUE}"),
    _shape("key=", r"(?<=[?&]key=)[a-z0-9._~+/%-]{12,}"),
    _shape("token", rf"(?:access|session|security|refresh|id|auth)[-_ ]?token{_VALUE}"),
    _shape("secret", rf"client[-_ ]?secret{_VALUE}"),
    _shape("signature", rf"(?<![a-z])signature{_VALUE}"),
    _shape("://", r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
)


class _Known:
    """The secrets of this process."""

    def __init__(self) -> None:
        self._standing: dict[str, tuple[_Needle, ...]] = {}
        self._renewed: dict[str, deque[tuple[_Needle, ...]]] = {}
        self.needles: tuple[_Needle, ...] = ()
        """Replaced as a whole: other threads log too."""
        self.hex_needles: tuple[_Needle, ...] = ()
        """Those that a text of hexadecimal digits may hold: the ids of requests are such, and new each time."""

    def know(self, secrets: Iterable[str]) -> None:
        fresh = {secret: _needles(secret) for secret in secrets if secret not in self._standing}
        if fresh:
            self._standing |= fresh
            self._follow()

    def renewed(self, source: str, secrets: Iterable[str]) -> None:
        needles = tuple(needle for secret in secrets for needle in _needles(secret))
        kept = self._renewed.setdefault(source, deque(maxlen=_KEPT))
        if needles not in kept:
            kept.append(needles)
            self._follow()

    def _follow(self) -> None:
        groups = [*self._standing.values(), *(each for kept in self._renewed.values() for each in kept)]
        self.needles = tuple({needle for group in groups for needle in group})
        self.hex_needles = tuple(needle for needle in self.needles if not needle[0].strip(_HEX))
        _scrubbed_short.cache_clear()


_KNOWN: Final = _Known()
_OF_CALL: ContextVar[tuple[_Needle, ...]] = ContextVar("moa_secrets_of_call", default=())


def know(*secrets: str) -> None:
    """Remember secrets for as long as the process lives; of an address, the password in it."""
    _KNOWN.know(_secret_part(secret) for secret in secrets)


def renewed(source: str, *secrets: str) -> None:
    """Remember the secrets that `source` has now, in place of those that it had long before."""
    _KNOWN.renewed(source, secrets)


def of_call(*secrets: str) -> None:
    """Remember secrets for the call that is being served: a caller's own."""
    _OF_CALL.set(tuple(needle for secret in secrets for needle in _needles(secret)))


def scrub(text: str) -> str:
    """Return a text without secrets: the known ones in any usual encoding and case, and what has a key's shape."""
    if len(text) < LEAST:
        return text
    own = _OF_CALL.get()
    return _scrubbed(text, own) if own or len(text) > _SHORT else _scrubbed_short(text)


@lru_cache(maxsize=2048)
def _scrubbed_short(text: str) -> str:
    """Do it once for what log lines say again and again: methods, models, codes."""
    return _scrubbed(text, ())


def _scrubbed(text: str, own: tuple[_Needle, ...]) -> str:
    is_hex = not text.strip(_HEX)
    lowered = text if is_hex else text.translate(_LOWER)
    whole: dict[int, int] = {}
    begun: set[int] = set()
    for probe, needle in (*(_KNOWN.hex_needles if is_hex else _KNOWN.needles), *own):
        at = lowered.find(probe)
        while at >= 0:
            if lowered.startswith(needle, at):
                whole[at] = max(whole.get(at, 0), at + len(needle))
            else:
                begun.add(at)
            at = lowered.find(probe, at + len(probe))
    if whole or begun:
        # What begins like a secret and goes on otherwise may be the rest of it, wrapped or written in another way.
        spans = [*whole.items(), *((at, len(text)) for at in begun if at not in whole)]
        text = _without(text, spans)
        lowered = text.translate(_LOWER)
    if is_hex:
        return text  # none of the shapes is made of digits alone
    for hint, pattern in _SHAPES:
        if hint in lowered:
            text = pattern.sub(HIDDEN, text)
    return text


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    kept = 0
    for at, end in sorted(spans):
        if at >= kept:
            pieces += (text[kept:at], HIDDEN)
        kept = max(kept, end)
    return "".join([*pieces, text[kept:]])


def _secret_part(secret: str) -> str:
    if "://" not in secret:
        return secret
    try:
        return urlsplit(secret).password or ""
    except ValueError:
        return secret


def _needles(secret: str) -> tuple[_Needle, ...]:
    result = {spelling.translate(_LOWER) for spelling in _spellings(secret)} if len(secret) >= LEAST else set()
    return tuple((spelling[:_PROBE], spelling) for spelling in result)


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as providers, proxies and their log lines may write it."""
    yield secret
    raw = secret.encode("utf-8", "surrogatepass")
    yield raw.hex()
    for shift in range(3):
        # Whatever stands before it (`user:`), base64 has one of three forms of it; its edges mix with its neighbours.
        coded = base64.b64encode(b"\0" * shift + raw).decode()[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
        yield coded
        yield coded.translate(str.maketrans("+/", "-_"))
        yield quote(coded, safe="")
    if not secret.isalnum():
        yield quote(secret, safe="", errors="replace")
        yield quote(secret, errors="replace")
        yield quote_plus(secret, errors="replace")
        yield html.escape(secret)
        # Inside a JSON text that is itself a string of another.
        yield json.dumps(secret)[1:-1]
        yield secret.replace("/", "\\/")
        yield "".join(c if c.isalnum() or c in "-_." else f"\\u{ord(c):04x}" for c in secret)
