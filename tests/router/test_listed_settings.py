"""A list among the settings of sampling goes through every dialect to whoever takes it, and is named elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import limits
from services.common.errors import InvalidField
from services.providers.text.ignored import Ignored
from services.router.dialects.google import requests as google
from services.router.dialects.native import text as native
from services.router.dialects.openai import chat_request as openai
from tests.router.passing import to_gemini, to_openai

TURNS = [{"role": "user", "content": "hi"}]


def of_openai(ids: Any) -> GenerateTextRequest:
    return openai.request_from(msgspec.json.encode({"model": "m", "messages": TURNS, "stop_token_ids": ids})).request


def of_google(ids: Any) -> GenerateTextRequest:
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"stopTokenIds": ids}}
    read = google.asked(msgspec.json.encode(body), "m", "text", stream=False).text
    assert read is not None
    return read


def of_native(ids: Any) -> GenerateTextRequest:
    return native.request_from(msgspec.json.encode({"model_id": "m", "messages": TURNS, "stop_token_ids": ids}))


@pytest.mark.parametrize("read", [of_openai, of_google, of_native])
def test_every_dialect_takes_the_list(read: Any) -> None:
    """It comes to the contract's field, in its limits."""
    assert dict(limits.given_settings(read([7, 9]).sampling)) == {"stop_token_ids": [7, 9]}
    assert dict(limits.given_settings(read([]).sampling)) == {}
    for bad in ([-1], ["x"], [1] * 65, 7):
        with pytest.raises(InvalidField, match=r"stop_?[tT]oken_?[iI]ds"):
            read(bad)


def test_providers_that_take_no_such_list_are_named() -> None:
    """Servers of OpenAI's protocol take it; OpenAI itself and Google do not, and the caller is told."""
    body = {"model": "m", "messages": TURNS, "stop_token_ids": [7, 9]}
    assert to_openai(body)["stop_token_ids"] == [7, 9]
    at_openai, at_google = Ignored(), Ignored()
    assert "stop_token_ids" not in to_openai(body, at_openai, passes="documented")
    assert to_gemini(GOOGLE, at_google)["generationConfig"] == {}
    assert at_openai.names == at_google.names == ["stop_token_ids"]


GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"stopTokenIds": [7]}}
