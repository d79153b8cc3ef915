"""How a token is chosen, and that every number of the contract reaches the choice."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from inference.text.ask import TextAsk, ask_from
from inference.text.sampling import Sampler
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common import limits

CHANCES = np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32)


def drawn(**fields: Any) -> Counter[int]:
    """Return which of four tokens were drawn, in 400 draws."""
    sampler = Sampler(TextAsk(turns=(), max_tokens=1, temperature=1.0, **fields), 0, lambda token: ("", b""))
    return Counter(sampler.pick(np.log(CHANCES))[0] for _ in range(400))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.65}, {0, 1}),
        ({"top_p": 0.85, "top_k": 2}, {0, 1}),
        ({"top_p": 0.1}, {0}),
        ({"min_p": 0.45}, {0, 1, 2}),
        ({"min_p": 0.55}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({"min_p": 0.45, "top_k": 2}, {0, 1}),
        ({"min_p": 0.55, "top_p": 0.5}, {0}),
    ],
)
def test_tokens_that_are_too_unlikely_are_not_drawn(fields: dict[str, float], kept: set[int]) -> None:
    """`top_k` keeps the k likeliest, `top_p` the nucleus, `min_p` those as likely as that part of the likeliest."""
    assert set(drawn(**fields)) == kept


GIVEN: Mapping[str, Any] = {"stop_token_ids": [1]}
"""Values of settings that are no numbers."""


def test_every_setting_of_the_contract_is_read_and_has_a_default() -> None:
    """What is given is taken, else the model's default, else the engine's own."""
    names = limits.settings(text_pb2.Sampling)
    assert set(names) <= {field.name for field in dataclasses.fields(TextAsk)}
    turn = text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(text="x")])
    given = text_service_pb2.GenerateTextRequest(
        messages=[turn],
        sampling=text_pb2.Sampling(**{name: GIVEN.get(name, 1) for name in names}),
    )
    model = Model(id="m", provider="p", capabilities=frozenset({"seed"}), defaults={"top_p": 0.5})
    ask = ask_from(given, model)
    assert {name: getattr(ask, name) for name in names} == {name: GIVEN.get(name, 1) for name in names}
    given.ClearField("sampling")
    ask = ask_from(given, model)
    assert (ask.temperature, ask.top_p, ask.top_k) == (1.0, 0.5, 0)
