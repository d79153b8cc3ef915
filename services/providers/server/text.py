"""Chats at a server of one's own: OpenAI's protocol."""

from __future__ import annotations

import dataclasses
from typing import Final

import msgspec

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.providers.http.client import Outgoing
from services.providers.openai import text as openai
from services.providers.openai.text.request import body_from, options_of, url_of
from services.providers.server import discovery
from services.providers.server.address import api_of
from services.providers.text.ignored import Ignored

_encode: Final = msgspec.json.Encoder().encode


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat."""
    body = body_from(request, model, options_of(provider), ignored)
    return Outgoing(url_of(api_of(provider), "/chat/completions"), _encode(body), {})


def check_request(provider: Provider) -> Outgoing:
    """Ask for the list of models."""
    return Outgoing(url_of(api_of(provider), "/models"), b"", {}, "GET")


ADAPTER = dataclasses.replace(
    openai.ADAPTER,
    name="server",
    request_from=request_from,
    list_models=discovery.list_models,
    list_s=discovery.EVERY_S,
    check_request=check_request,
    count_request_from=None,
    count_from=None,
)
