"""Write one of the wordings of a pattern: `[Hi|Hello] there[!|]` is written in four ways.

`{은}`, `{이}`, `{을}`, `{와}` and `{으로}` are written as the Korean particle that the syllable before them takes.
"""

from __future__ import annotations

import re
from random import Random
from typing import Final

from inference.training.dialogues.korean import object_, subject, topic, towards, with_

_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
_PARTICLE: Final = re.compile(r"(\S)\{(은|이|을|와|으로)\}")
_SPACES: Final = re.compile(r" {2,}")
_PARTICLES: Final = {"은": topic, "이": subject, "을": object_, "와": with_, "으로": towards}


def write(rng: Random, pattern: str) -> str:
    """Choose in every bracket, innermost first; then choose the particles."""
    while "[" in pattern:
        pattern = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), pattern)
    pattern = _PARTICLE.sub(lambda found: _PARTICLES[found[2]](found[1]), pattern)
    return _SPACES.sub(" ", pattern).strip()
