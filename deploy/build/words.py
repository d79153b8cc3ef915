"""Lint the words: names, docstrings and messages are in those of `docs/glossary.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from deploy.build.messages import messages
from deploy.build.protos import REPOSITORY
from deploy.syntax import parsed

FOLDERS = ("services", "inference", "gateway", "deploy", "bench", "tests")
PRODUCT = ("services", "inference", "gateway", "deploy")
GIVEN_BACK = (
    "a claim back",
    "cached blocks back",
    "the memory of unloaded models back",
    "back ",
    "everything back",
    "some of it back",
    "a name all its tries back",
)
"""What functions really give."""

NAMES: Final = {
    "annul": "void",
    "annulled": "voided",
    "apart": "isolate",
    "appetite": "demand",
    "beats": "heartbeat, progress",
    "bell": "notices",
    "beside": "helper process",
    "doubt": "defer",
    "doubted": "deferred",
    "holding": "store, lease store",
    "holdings": "stores, lease stores",
    # A field of the public contract is called so, which no release can rename.
    "first_alone": "further_unknown",
    "hosted": "registrations",
    "hungrier": "demand",
    "identity": "verified key",
    "left_midway": "report",
    "once": "idempotent calls",
    "outside": "egress",
    "portion": "increment",
    "portions": "increments",
    "pulse": "heartbeat",
    "reach": "connections",
    "said": "what it is: message, text, words, output",
    "shelf": "what it holds",
    "shrunk": "shrink, smaller",
    "speaking_for": "name_the_retired",
    "told": "what it is: message, report, stats",
    "vanished": "abandoned",
}
"""Names that are no longer given to anything, and what to write. Of any case, with or without underscores around."""
EXCUSED: Final = {
    "apart": ("deploy/build/inputs.py", "services/providers/openai/text/count.py", "services/router/dialects/google/"),
    "beside": (
        "inference/sources.py",
        "services/common/store/folder.py",
        "services/router/dialects/",
        "services/providers/",
    ),
    # Azure's own word.
    "identity": ("services/providers/azure/",),
    "told": ("services/auth/", "services/quota_client/"),
    "reach": ("services/quota_client/",),
}
"""Where a name stands still: it means what it says, or its module waits to be moved to its words."""

TAKEN: Final = {
    "services/quota_client/": {"booking": "reservation", "keeper": "reservation store"},
    "services/router/": {"booking": "reservation", "source": "message stream", "sources": "message streams"},
    "services/image/": {"work": "generation"},
}
"""Names that stand for something else in another part of the system, and what to write here."""

RIDDLES: Final = re.compile(
    r"\b(numbers that are none|what is no|is no [A-Za-z]+ file|gave up|gave the \w+ up|fell silent|hung up|are none\b"
    r"|anew$|so-called|between a moment|belongs? to$)"
)
"""Turns of phrase that a reader has to guess at."""


def named(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the names that a module gives to classes, functions, parameters, attributes and variables."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name, node.lineno


def misnamed(path: str, tree: ast.Module) -> list[str]:
    """Return the names of a module that are on the list, and what to write."""
    return [
        f"{path}:{line}: {name}: {NAMES[word]}"
        for name, line in named(tree)
        if (word := name.strip("_").lower()) in NAMES and not path.startswith(EXCUSED.get(word, ("\0",)))
    ] + [
        f"{path}:{line}: {name}: {taken[word]}"
        for part, taken in TAKEN.items()
        if path.startswith(part)
        for name, line in named(tree)
        if (word := name.strip("_").lower()) in taken
    ]


def wrong_docstrings(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module that say otherwise what is returned: `Give …` and `Tell whether …`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = ast.get_docstring(node) or ""
            given = words.startswith(("Give ", "Gives ")) and not words.removeprefix("Give ").startswith(GIVEN_BACK)
            if given or words.startswith(("Tell whether ", "Say whether ", "Tells whether ")):
                yield f"{path}:{node.lineno}: {words.splitlines()[0]}"


def faults() -> Iterator[str]:
    """Yield every fault of the repository, with its place."""
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            name = str(path.relative_to(REPOSITORY))
            if name.startswith("inference/training/"):
                continue
            tree = parsed(path.read_text())
            yield from wrong_docstrings(name, tree)
            if folder in PRODUCT:
                yield from misnamed(name, tree)
    for each in messages():
        if RIDDLES.search(each.template):
            yield f"{each.template}: a message that a reader has to guess at"


if __name__ == "__main__":
    found = list(faults())
    print("\n".join(found), end="\n" if found else "")
    raise SystemExit(1 if found else 0)
