"""A policy in a process of the operator's own, by `moa.policy.v1.PolicyService`."""

from __future__ import annotations

from typing import Any

import grpc

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.policy.v1 import policy_pb2, policy_service_pb2, policy_service_pb2_grpc
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.policies import Asked, Change, Hook, Refuse, Replace, Stop, Watch

_LONGEST_REASON = 1000


class BadVerdict(Exception):
    """An answer of the operator's process that is none of the contract's."""


class RemotePolicy(Hook):
    """Asks the operator's process.

    Args:
        channel: Where it is.
        holds: Characters of a text that are held back.
    """

    def __init__(self, channel: grpc.aio.Channel, *, holds: int) -> None:
        self._stub: policy_service_pb2_grpc.PolicyServiceAsyncStub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        self.holds = holds

    async def before(self, asked: Asked, request: Any) -> Change | Refuse | None:
        """As `Hook.before`. Raises AioRpcError, BadVerdict."""
        question = policy_service_pb2.BeforeRequest(asked=_asked(asked), request=_request(request))
        answer = await self._stub.Before(question)
        verdict = answer.WhichOneof("verdict")
        if verdict == "allow":
            return None
        if verdict == "refuse":
            return Refuse(answer.refuse.reason[:_LONGEST_REASON])
        if verdict != "change" or (kind := answer.change.request.WhichOneof("request")) is None:
            raise BadVerdict
        return Change(getattr(answer.change.request, kind))

    def watch(self, asked: Asked, request: Any) -> Watch:
        """As `Hook.watch`; the call begins with the first event."""
        return _RemoteWatch(self._stub, asked)


class _RemoteWatch(Watch):
    def __init__(self, stub: policy_service_pb2_grpc.PolicyServiceAsyncStub, asked: Asked) -> None:
        self._stub = stub
        self._asked = asked
        self._call: Any = None

    async def after(self, event: Any) -> Replace | Stop | None:
        question = policy_service_pb2.AfterRequest(event=_event(event))
        if self._call is None:
            self._call = self._stub.After()
            question.asked.CopyFrom(_asked(self._asked))
        await self._call.write(question)
        answer = await self._call.read()
        verdict = None if answer is grpc.aio.EOF else answer.WhichOneof("verdict")
        if verdict == "allow":
            return None
        if verdict == "stop":
            return Stop(answer.stop.reason[:_LONGEST_REASON])
        if verdict != "replace":
            raise BadVerdict
        return Replace([_event_in(each) for each in answer.replace.events])

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()


def _asked(asked: Asked) -> policy_pb2.Asked:
    return policy_pb2.Asked(request_id=asked.request_id, account_id=asked.account_id)


def _request(request: Any) -> policy_pb2.Request:
    if isinstance(request, GenerateTextRequest):
        return policy_pb2.Request(text=request)
    if isinstance(request, GenerateImageRequest):
        return policy_pb2.Request(image=request)
    assert isinstance(request, EmbedTextsRequest)
    return policy_pb2.Request(embedding=request)


def _event(event: Any) -> policy_pb2.Event:
    return policy_pb2.Event(text=event) if isinstance(event, text_pb2.TextEvent) else policy_pb2.Event(image=event)


def _event_in(event: policy_pb2.Event) -> Any:
    if (kind := event.WhichOneof("event")) is None:
        raise BadVerdict
    return getattr(event, kind)
