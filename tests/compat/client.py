"""What a client is, and what models say to it and its tools answer where it says nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.compat.plots import LOOP, Plot

CHAT: Final = ("plain", "stream", "tools", "tools-stream", "structured", "refused")
LOOPS: Final = ("tools", "tools-stream", "tools-stored", "tools-session")
VENDORS: Final = ("openai", "gemini", "claude")
OWN: Final = "anthropic"
"""Claude at Anthropic itself, for clients that speak its API."""
RESULTS: Final = ("21 degrees", "23 degrees", "25 degrees", "12:00")
"""What the tools of the programs answer, in the order of `LOOP`'s calls."""
CALLS: Final = [(call.name, call.arguments) for step in LOOP for call in step.calls]
"""What the tools of the programs are called with in a loop."""
PLOTS: Final[Mapping[str, Plot]] = {
    "plain": Plot(),
    "stream": Plot(),
    "tools": Plot(steps=LOOP, marks=RESULTS),
    "tools-stream": Plot(steps=LOOP, marks=RESULTS),
    "tools-stored": Plot(steps=LOOP, marks=RESULTS),
    "tools-session": Plot(steps=LOOP, marks=RESULTS),
    "structured": Plot(),
    "structured-tool": Plot(),
    "structured-json": Plot(),
    "task": Plot(),
    "refused": Plot(refuse="upstream_rate_limited"),
    "images": Plot(),
    "embeddings": Plot(),
    "picture": Plot(sees=True),
    "count": Plot(outcome="counted"),
    "batch": Plot(),
}


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client.

    Args:
        name: As the table says it.
        lock: The environment's lock.
        program: The file in `programs/` that drives it.
        package: The package whose version the table tells.
        dialect: The protocol that it speaks.
        scenarios: What it is asked, by vendor; `CHAT` of every vendor by default.
        plots: What the model says where it is not what `PLOTS` says.
        replays: The version whose calls a program of our own says again, where the client itself cannot be had here.
        models: Which models it asks, where not the vendors' first ones of `world`.
        counts: Whether the program sees which tools are called; the providers see it in any case.
        loops: Which of its scenarios are loops of three turns with reasoning.
        forgets: In which scenarios the client keeps no thoughts of the model: neither `reasoning_content` nor what a
            vendor's own API has for it. Claude then goes on without thinking, as docs/dialects.md says.
    """

    name: str
    lock: str
    program: str
    package: str
    dialect: str
    scenarios: Mapping[str, Sequence[str]] = field(default_factory=lambda: dict.fromkeys(VENDORS, CHAT))
    plots: Mapping[str, Plot] = field(default_factory=dict)
    forgets: Sequence[str] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    loops: Sequence[str] = LOOPS
    counts: bool = True
    replays: str = ""
