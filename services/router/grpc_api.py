"""The public gRPC API: every declared operation by its contract, and the catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from moa.router.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from services.common.errors import error_of
from services.common.own_task import in_own_task
from services.common.rpc.internals.batch import defer_headers
from services.router.dialects import reply
from services.router.dialects.described import message_of
from services.router.dialects.reading import Reading
from services.router.domain.answer import Answer
from services.router.domain.listing import Listing
from services.router.domain.operation import Call, CountingOperation, Method
from services.router.domain.operations import Operations
from services.router.operations import CALLS
from services.router.serving import begin, note


def handlers(operations: Operations, reading: Reading) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return what serves the declared operations."""
    return tuple(OperationServicer(operations, reading, call).handler() for call in CALLS)


class OperationServicer:
    """One operation, for gRPC callers.

    Args:
        reading: Looks through large requests.
        call: Its requests.
    """

    def __init__(self, operations: Operations, reading: Reading, call: type[Call[Any, Any]]) -> None:
        self._operations = operations
        self._reading = reading
        self._call = call

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what serves the contract's methods."""
        operation, methods = self._call.operation, {}
        if (method := operation.stream) is not None:
            methods[method.name] = grpc.unary_stream_rpc_method_handler(
                self._stream, method.request.FromString, method.response.SerializeToString
            )
        if (method := operation.whole) is not None:
            methods[method.name] = _unary(method, self._whole)
        if isinstance(operation, CountingOperation):
            methods[operation.count.name] = _unary(operation.count, partial(self._count, operation))
        return grpc.method_handlers_generic_handler(operation.service, methods)

    async def _begun(self, request: Any, context: Any) -> Answer[Any]:
        caller = begin(context)
        answer = await self._operations.begin(await self._call.received(request, self._reading), caller)
        note(answer, caller)
        return answer

    async def _stream(self, request: Any, context: Any) -> None:
        """Answer in events."""
        async with await self._begun(request, context) as answer:
            await context.send_initial_metadata(reply.headers(answer))
            if (started := self._call.operation.started) is not None:
                await context.write(started(answer.model, answer.ignored))
            await in_own_task(_relayed(answer, context))

    async def _whole(self, request: Any, context: Any) -> Any:
        """Answer in one message: the stream, drained. Raises MoaError when its last event is an error."""
        operation = self._call.operation
        assert operation.whole is not None
        async with await self._begun(operation.whole.inner(request), context) as answer:
            await defer_headers(context, reply.headers(answer))
            messages = [] if operation.started is None else [operation.started(answer.model, answer.ignored)]
            while (message := await answer.next()) is not None:
                messages.append(message)
        if (events := messages[-1].events) and events[-1].HasField("error"):
            raise error_of(events[-1].error)
        return operation.whole.gathered(messages)

    async def _count(self, operation: CountingOperation[Any, Any], request: Any, context: Any) -> Any:
        """Count a prompt's tokens."""
        count = await self._operations.count_tokens(operation, request, begin(context))
        return operation.count.response(prompt_tokens=count)


async def _relayed(answer: Answer[Any], context: Any) -> None:
    while (message := await answer.next()) is not None:
        await context.write(message)
        answer.delivered_message(message)


def _unary(method: Method, serve: Callable[[Any, Any], Awaitable[Any]]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(serve, method.request.FromString, method.response.SerializeToString)


class CatalogServicer(catalog_service_pb2_grpc.CatalogServiceServicer):
    """The catalogue, for gRPC callers."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    async def ListModels(
        self, request: catalog_service_pb2.ListModelsRequest, context: Any
    ) -> catalog_service_pb2.ListModelsResponse:
        """List models."""
        models = await self._listing.models(begin(context), provider=request.provider)
        return catalog_service_pb2.ListModelsResponse(models=[await message_of(self._listing, m) for m in models])

    async def GetModel(
        self, request: catalog_service_pb2.GetModelRequest, context: Any
    ) -> catalog_service_pb2.GetModelResponse:
        """Describe one model."""
        model = await self._listing.model(begin(context), request.model)
        return catalog_service_pb2.GetModelResponse(model=await message_of(self._listing, model))
