"""Bodies whose pictures become base64 as they are sent."""

from __future__ import annotations

import base64
import json
import os
import pickle
from functools import partial

import pytest
from yarl import URL

from services.providers.http.client import Outgoing
from services.providers.http.woven import Weaving, Woven

PICTURES = [os.urandom(size) for size in (70_000, 200_001, 300_002)]


def woven() -> Woven:
    weaving = Weaving()
    value = {"a": [f"data:x,{weaving.marked(len(each), partial(bytes, each))}" for each in PICTURES], "b": "end"}
    body = weaving.body(json.dumps(value).encode())
    assert isinstance(body, Woven)
    return body


@pytest.mark.parametrize("most", [1024, 65_536, 10**6])
def test_its_pieces_are_the_body_however_long_they_are(most: int) -> None:
    """Each time that it is sent, and as long as it is said to be."""
    body = woven()
    expected = {"a": [f"data:x,{base64.b64encode(each).decode()}" for each in PICTURES], "b": "end"}
    for _ in range(2):
        pieces = list(body.pieces(most))
        assert json.loads(b"".join(pieces)) == expected
        assert sum(map(len, pieces)) == len(body)
        assert max(map(len, pieces)) <= most
    assert bytes(body) == b"".join(pieces)


def test_a_body_without_large_pictures_is_what_it_was() -> None:
    """Nothing is looked for in it."""
    encoded = b'{"a": "00000000000000000000000000000000000000"}'
    assert Weaving().body(encoded) is encoded


def test_it_passes_between_processes_as_bytes() -> None:
    """A helper process that made one hands it over whole."""
    buffers: list[pickle.PickleBuffer] = []
    body = woven()
    pickled = pickle.dumps(Outgoing(URL("http://x"), body, {}), 5, buffer_callback=buffers.append)
    passed = pickle.loads(pickled, buffers=buffers)
    assert bytes(passed.body) == bytes(body)
