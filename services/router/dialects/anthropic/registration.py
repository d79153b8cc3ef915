"""The Anthropic dialect in the router."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import grpc

from moa.batch.v1.batched_message_service_pb2_grpc import add_BatchedMessageServiceServicer_to_server
from moa.router.v1 import anthropic_service_pb2
from services.router.dialects import anthropic
from services.router.dialects.anthropic.batched import BatchedMessageServicer
from services.router.dialects.methods import registered
from services.router.dialects.parts import Parts

_MESSAGES: Final = registered(anthropic_service_pb2.DESCRIPTOR, anthropic)


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    _MESSAGES.serve(server, parts)
    add_BatchedMessageServiceServicer_to_server(BatchedMessageServicer(parts), server)


REGISTRATION: Final = replace(_MESSAGES, serve=_serve)
