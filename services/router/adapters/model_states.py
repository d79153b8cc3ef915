"""Ask the inference service how far its models are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc

from moa.inference.v1 import model_service_pb2, model_service_pb2_grpc
from services.common import logs
from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.router.domain.listing import Readiness

WAIT_S: Final = 1.0
_FRESH_S: Final = 1.0
_WORDS: Final = {
    model_service_pb2.MODEL_STATE_READY: "ready",
    model_service_pb2.MODEL_STATE_LOADING: "loading",
    model_service_pb2.MODEL_STATE_ABSENT: "absent",
}

_log = logs.get("states")


class ModelStates:
    """The states of the gateway's own models, asked for at most once a second.

    Args:
        channels: To the inference service, and to each of its pools.
        service_token: The credential between services.
        names: What the pools are called, in the same order.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        channels: Iterable[grpc.aio.Channel],
        *,
        service_token: Credential,
        names: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stubs = [model_service_pb2_grpc.ModelServiceStub(channel) for channel in channels]
        self._names = tuple(names) or ("",) * len(self._stubs)
        self._token = service_token
        self._clock = clock
        self._asking = asyncio.Lock()
        self._known: Mapping[str, Readiness] = {}
        self._asked_at = float("-inf")

    async def now(self) -> Mapping[str, Readiness]:
        """Return the states by full id; none of those whose service does not answer within a second."""
        async with self._asking:
            if self._clock() - self._asked_at >= _FRESH_S:
                asked = await asyncio.gather(*map(self._ask, self._stubs))
                self._known = {name: state for states in asked for name, state in states.items()}
                self._asked_at = self._clock()
        return self._known

    async def pools(self) -> list[tuple[str, model_service_pb2.DescribeEnginesResponse | None]]:
        """Return what a process of each pool has in memory and does, by the pool's name; None where none answers."""
        answers = await asyncio.gather(*map(self._describe, self._stubs))
        return list(zip(self._names, answers, strict=True))

    async def _describe(self, stub: Any) -> model_service_pb2.DescribeEnginesResponse | None:
        request = model_service_pb2.DescribeEnginesRequest()
        try:
            answer: model_service_pb2.DescribeEnginesResponse = await stub.DescribeEngines(
                request, metadata=metadata(self._token, "engines"), timeout=WAIT_S
            )
        except grpc.aio.AioRpcError as error:
            _log.info("engines.not_described", code=error.code().name)
            return None
        return answer

    async def _ask(self, stub: Any) -> Mapping[str, Readiness]:
        request = model_service_pb2.ListModelStatesRequest()
        try:
            states = await stub.ListModelStates(request, metadata=metadata(self._token, "states"), timeout=WAIT_S)
        except grpc.aio.AioRpcError as error:
            _log.warning("states.not_told", code=error.code().name)
            return {}
        return {status.model: _readiness(status) for status in states.states}


def _readiness(status: model_service_pb2.ModelStatus) -> Readiness:
    results: dict[str, object] = {"status": _WORDS.get(status.state, "absent")}
    if status.state == model_service_pb2.MODEL_STATE_LOADING:
        results["percent"] = status.percent
    if status.detail:
        results["detail"] = status.detail
    return results
