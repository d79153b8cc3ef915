import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.providers.http.sse import EventParser

STREAM = (
    ": a comment\r\n\r\n"
    'data: {"a": "안녕 🌍"}\r\n\r\n'
    "event: message\ndata: one\ndata: two\nid: 7\n\n"
    "retry: 10\n\n"
    "data:no space\r\rdata\n\n"
    "data:  two spaces\n\n"
    "data: [DONE]\n\n"
).encode()
DATA = ['{"a": "안녕 🌍"}', "one\ntwo", "no space", "", " two spaces", "[DONE]"]


def _read(pieces: list[bytes]) -> list[str]:
    parser = EventParser()
    return [event.decode() for piece in pieces for event in parser.feed(piece)] + [e.decode() for e in parser.end()]


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_events_are_the_same_wherever_the_bytes_are_split(at: int) -> None:
    """A split at any byte, inside UTF-8 and between CR and LF too, changes nothing."""
    assert _read([STREAM[:at], STREAM[at:]]) == DATA


def test_events_are_the_same_byte_by_byte() -> None:
    """Bytes that come one at a time make the same events."""
    assert _read([STREAM[i : i + 1] for i in range(len(STREAM))]) == DATA


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_events_are_the_same_for_any_splits(cuts: list[int], mark: bool) -> None:
    """Any number of splits, and a byte order mark before it all, change nothing."""
    stream = (b"\xef\xbb\xbf" if mark else b"") + STREAM
    edges = [0, *sorted(cuts), len(stream)]
    assert _read([stream[a:b] for a, b in itertools.pairwise(edges)]) == DATA


def test_a_last_event_without_its_empty_line_is_given_at_the_end() -> None:
    """Servers that forget the last empty line lose nothing."""
    assert _read([b"data: a\n\ndata: b\n"]) == ["a", "b"]


def test_a_large_event_in_many_pieces_is_read_in_linear_time() -> None:
    """Eight megabytes in pieces of 16 KB are one event."""
    parser = EventParser()
    payload = b"x" * (8 * 2**20)
    whole = b"data: " + payload + b"\n\n"
    found = [event for i in range(0, len(whole), 16384) for event in parser.feed(whole[i : i + 16384])]
    assert found == [payload]
