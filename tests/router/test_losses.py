"""What is lost on the way of an answer is written in docs/dialects.md, row by row, and nothing else is lost."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest

from moa.text.v1 import text_pb2
from services.common import vendor_fields
from services.common.errors import word
from tests.router.passage import ALL, DIALECTS, Outcome, events_of, lost, outcome, said, unsaid
from tests.router.recordings import Recording, Said

PAGE: Final = Path(__file__).parents[2] / "docs" / "dialects.md"
_NAMES: Final = {"openai": "OpenAI", "google": "Google", "aws": "Bedrock", "anthropic": "Anthropic"}
_STRUCTURE: Final = frozenset(("contentBlockIndex", "toolUseId", "input"))
"""What only says what belongs together, and arguments, which are compared as a whole."""
_OF_MESSAGES: Final = ("id", "model", "service_tier", "inference_geo", "stop_reason", "output_tokens")
"""What Messages says of a whole answer."""
_OF_MESSAGE_FORM: Final = frozenset(("type", "index", "input", "partial_json"))
"""What only says what belongs together, and arguments, which are compared as a whole."""
_KINDS: Final = ("metrics", "trace", "performanceConfig", "serviceTier", "additionalModelResponseFields", "stopReason")
"""What Converse says of a whole answer."""


def rows(heading: str) -> set[tuple[str, str]]:
    """Return the first two columns of the table below a heading, a row for each of the second column's paths."""
    section = PAGE.read_text().split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    found = re.findall(r"^\| (\w+) \| (`[^|]+`) \| .+ \|$", section, re.MULTILINE)
    assert found
    return {(name, path) for name, paths in found for path in re.findall(r"`([^`]+)`", paths)}


def _row_of(path: str, known: set[str]) -> str:
    """Return the row that speaks of a path: its own, or one of what it is in."""
    return next((row for row in known if path == row or path.startswith((f"{row}.", f"{row}["))), path)


def _got(recording: Recording, dialect: str, *, stream: bool) -> Outcome:
    return asyncio.run(outcome(recording, dialect, stream=stream))


def _expected(recording: Recording, dialect: str) -> tuple[Said, str]:
    """Return what an answer says in a dialect, and how it ends."""
    says = recording.says
    if dialect == "google" and says.refusal:
        says = says._replace(text=says.text + says.refusal, refusal="")  # Google's API has no refusals
    return says, recording.ends if dialect == recording.vendor else recording.elsewhere


# These have one candidate.
_SINGLE: Final = ("anthropic", "native")
WAYS: Final = [
    (name, dialect)
    for name, recording in ALL.items()
    for dialect in DIALECTS
    if dialect not in _SINGLE or recording.candidates == 1
]


@pytest.mark.parametrize(("name", "dialect"), WAYS)
@pytest.mark.parametrize("stream", [True, False])
def test_everything_said_reaches_callers_of_every_dialect(name: str, dialect: str, stream: bool) -> None:
    """Or the answer ends with an error after what came before: no piece is dropped in an answer that ends well."""
    recording = ALL[name]
    says, ends = _expected(recording, dialect)
    shown, error = _got(recording, dialect, stream=stream)
    assert (word(error.reason) if error is not None else "") == ends
    if stream or not ends:
        assert said(dialect, shown) == says


@pytest.mark.parametrize("name", [name for name, recording in ALL.items() if recording.vendor in DIALECTS])
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_lost_but_what_is_written_down(name: str, stream: bool) -> None:
    """From a provider to a caller of the same vendor's API."""
    recording = ALL[name]
    shown, error = _got(recording, recording.vendor, stream=stream)
    known = {path for dialect, path in rows("Lost within one vendor") if dialect == _NAMES[recording.vendor]}
    assert error is not None or {_row_of(path, known) for path in lost(recording, shown)} <= known


def test_no_row_of_the_table_is_out_of_date() -> None:
    """What is written down as lost is lost in some recording: the table may not grow by itself."""
    known = rows("Lost within one vendor")
    found = set()
    for recording in ALL.values():
        vendor = _NAMES[recording.vendor]
        paths = {path for name, path in known if name == vendor}
        for stream in (True, False):
            shown, error = _got(recording, recording.vendor, stream=stream) if paths else Outcome([], None)
            if error is None and paths:
                found |= {(vendor, _row_of(path, paths)) for path in lost(recording, shown)}
    assert found == known


def test_what_other_dialects_do_not_show_is_written_down() -> None:
    """What only the vendor's own callers are given, by its name, and what of Converse nobody is."""
    found = set()
    for recording in ALL.values():
        if recording.elsewhere:
            continue  # an error says so
        for event in events_of(recording, recording.vendor)[0]:
            for kind, fields in vendor_fields.fields_of(event.vendor, recording.vendor).items():
                found |= {(_NAMES[recording.vendor], f"{kind}.{field}") for field in fields}
        if recording.vendor == "aws":
            paths = unsaid(recording, _got(recording, "openai", stream=recording.streamed).shown)
            found |= {("Bedrock", _of_converse(path)) for path in paths if _STRUCTURE.isdisjoint(path.split("."))}
        if recording.vendor == "anthropic":
            paths = unsaid(recording, _got(recording, "openai", stream=recording.streamed).shown)
            found |= {("Anthropic", name) for name in map(_of_messages, paths) if name}
    assert found == rows("Lost between vendors")


def _of_converse(path: str) -> str:
    kind = next((name for name in path.replace("[]", "").split(".") if name in _KINDS), "")
    return f"answer.{kind}" if kind else "text.citations" if "citation" in path else path


def _of_messages(path: str) -> str:
    """Return what a field of Messages is called in the table; empty for types and indices, and for counts and calls."""
    if "citation" in path:
        return "text.citations"
    name = path.replace("[]", "").rpartition(".")[2]
    return f"answer.{name}" if name in _OF_MESSAGES else "" if _OF_MESSAGE_FORM & set(path.split(".")) else path


@pytest.mark.parametrize("name", [name for name, recording in ALL.items() if not recording.elsewhere])
def test_other_callers_get_what_contracts_type(name: str) -> None:
    """To a caller who speaks another API no event carries anything, and the rest of the answer is the same."""
    recording = ALL[name]
    events, failure = events_of(recording, "native")
    assert failure is None
    assert not any(event.HasField("vendor") for event in events)
    own, _ = events_of(recording, recording.vendor)
    kinds = ("text", "tool_call", "candidate_finished", "finished")
    assert [_plain(e) for e in events if e.WhichOneof("event") in kinds] == [
        _plain(e) for e in own if e.WhichOneof("event") in kinds
    ]


def _plain(event: text_pb2.TextEvent) -> str:
    plain = text_pb2.TextEvent()
    plain.CopyFrom(event)
    plain.ClearField("vendor")
    plain.tool_call.id = ""  # made where the provider gives none
    return str(plain)
