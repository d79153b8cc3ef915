"""The things that can be found on a desk: a closed set, so that no item's name can be a field's name in an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

ITEMS: Final[Mapping[str, str]] = {
    "monitor": "모니터",
    "keyboard": "키보드",
    "mouse": "마우스",
    "mouse pad": "마우스패드",
    "laptop": "노트북",
    "desk lamp": "스탠드",
    "speaker": "스피커",
    "headphones": "헤드폰",
    "microphone": "마이크",
    "webcam": "웹캠",
    "plant": "화분",
    "mug": "머그컵",
    "clock": "탁상시계",
    "book": "책",
    "pen holder": "펜꽂이",
    "picture frame": "액자",
    "monitor stand": "모니터받침대",
    "laptop stand": "노트북거치대",
    "office chair": "의자",
    "desk organizer": "데스크정리함",
}
"""What vision is asked for, in English, and what shops are asked for, in Korean: the latter are the answer's keys."""


def kinds_of(labels: Iterable[str]) -> list[str]:
    """Return the known labels among those that vision found, each once, in order."""
    return [label for label in dict.fromkeys(labels) if label in ITEMS]


def named_in(prompt: str) -> list[str]:
    """Return the items that a prompt names, in English or in Korean, in order of mention. The longest name counts."""
    text = prompt.lower()
    results: dict[int, tuple[int, str]] = {}
    for label, name in ITEMS.items():
        for pattern in (rf"\b{re.escape(label)}s?\b", re.escape(name)):
            for match in re.finditer(pattern, text):
                length = match.end() - match.start()
                if length > results.get(match.start(), (0, ""))[0]:
                    results[match.start()] = (length, label)
    return list(dict.fromkeys(label for _, (_, label) in sorted(results.items())))
