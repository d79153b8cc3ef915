"""Which modules of ours a piece of work passes: those of which a function is called, or a coroutine goes on."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]


class Walk:
    """Counts what runs in one thread, by module."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def begin(self) -> None:
        """Count from now on what this thread runs."""
        self._calls.clear()
        sys.setprofile(self._note)

    def end(self) -> Counter[str]:
        """Stop counting, and return how often each module of ours was passed."""
        sys.setprofile(None)
        passed: Counter[str] = Counter()
        for file, count in self._calls.items():
            path = Path(file)
            if path.is_relative_to(_ROOT / "services"):
                passed[str(path.relative_to(_ROOT / "services"))] += count
        return passed

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        # What runs when a module is imported or a class is made is no step of a walk.
        if event == "call" and frame.f_code.co_name != "<module>":
            self._calls[frame.f_code.co_filename] += 1


@contextmanager
def walked() -> Iterator[set[str]]:
    """Yield the set of the modules that this thread passes in the block; it is filled when the block ends."""
    walk, modules = Walk(), set[str]()
    walk.begin()
    try:
        yield modules
    finally:
        modules |= {module.removesuffix(".py") for module in walk.end()}
