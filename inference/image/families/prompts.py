"""Prompts that are longer than a text encoder reads at once.

The plain pipelines cut a prompt off at the encoder's window (77 tokens of CLIP's, its two ends included) and go on.
Here it is read in several windows, split between words, and the encodings are put one after the other, as a
cross-attending denoiser takes them; a prompt that fits is encoded as the plain pipeline encodes it. A model that was
never taught more than a window (the one that ships loses things of the first) is set to `cut` in the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, Final

import torch

from services.common.errors import InvalidField, ModelMisconfigured

WINDOWS: Final = "windows"
CUT: Final = "cut"
MOST_WINDOWS: Final = 4
_ENDS: Final = 2
"""Tokens of a window that are not the prompt's: its beginning and its end."""
_WORD: Final = re.compile(r"\s*\S+")

Encode = Callable[[str, str | None], tuple[Any, ...]]
"""Encodes a prompt and a negative prompt of one window each; of what it gives, the first two grow with the windows."""


def way_of(options: Mapping[str, Any]) -> str:
    """Return what is done with long prompts, by a model's options. Raises ModelMisconfigured for what is not known."""
    way = str(options.get("long_prompts", WINDOWS))
    if way not in (WINDOWS, CUT):
        raise ModelMisconfigured(f"long_prompts is {WINDOWS} or {CUT}, not {way[:100]!r}")
    return way


def encoded(way: str, tokenizer: Any, prompt: str, negative: str, encode: Encode) -> tuple[Any, ...]:
    """Encode a prompt and a negative prompt in as many windows as the longer of them takes, or cut off at one.

    Gives what `encode` gives, the first two joined over all windows, the others (pooled encodings) of the first window.
    Raises InvalidField for a prompt beyond MOST_WINDOWS.
    """
    if way == CUT:
        return encode(prompt, negative or None)
    shown = _bounded(tokenizer, prompt, "prompt")
    hidden = _bounded(tokenizer, negative, "negative_prompt")
    # An absent negative prompt is not an empty one: some models take zeros for it.
    parts = [encode(one, other if negative else None) for one, other in zip_longest(shown, hidden, fillvalue="")]
    if len(parts) == 1:
        return parts[0]
    joined = [None if column[0] is None else torch.cat(column, dim=1) for column in list(zip(*parts, strict=True))[:2]]
    return (*joined, *parts[0][2:])


def refuse_longer(tokenizer: Any, text: str, most: int, param: str) -> None:
    """Raise InvalidField for a text of more tokens, its ends included, than an encoder reads."""
    count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
    if count > most:
        raise InvalidField(f"the prompt has {count} tokens; this model reads at most {most}", param=param)


def _bounded(tokenizer: Any, text: str, param: str) -> list[str]:
    room = int(tokenizer.model_max_length) - _ENDS
    made = windows(lambda piece: _count(tokenizer, piece), text, room)
    if len(made) > MOST_WINDOWS:
        count, most = _count(tokenizer, text), MOST_WINDOWS * room
        raise InvalidField(f"the prompt has {count} tokens; this model reads at most about {most}", param=param)
    return made


def windows(count: Callable[[str], int], text: str, room: int) -> list[str]:
    """Split a text between words into parts of at most `room` tokens; a word that is longer is split inside.

    Put together, the parts are the text. One that fits stays whole, blanks and all.

    Args:
        count: Tokens of a piece; those of several words are the sum of each one's.
        text: The text.
        room: Tokens of a part, at least one.
    """
    if count(text) <= room:
        return [text]
    parts, taken = [""], 0
    waiting = _WORD.findall(text)[::-1]
    while waiting:
        word = waiting.pop()
        size = count(word)
        if size > room and len(word) > 1:
            waiting += [word[len(word) // 2 :], word[: len(word) // 2]]
            continue
        if taken + size > room and parts[-1]:
            parts.append("")
            taken = 0
        parts[-1] += word
        taken += size
    parts[-1] += text[len("".join(parts)) :]
    return parts


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)
