"""A router that does what a test asks: the real contracts on a real server, behind the real edge.

In a test's own process it can be watched and held (`Upstream`); as `python -m tests.edge.upstream PORT` it can be
killed. What a REST call does is said by its JSON body's `act`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import grpc
from google.api import httpbody_pb2

from deploy.local.forked import Forked
from deploy.local.readiness import await_grpc
from deploy.local.stack import REPOSITORY
from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.router.v1 import (
    google_service_pb2,
    native_service_pb2,
    native_service_pb2_grpc,
    openai_service_pb2,
    openai_service_pb2_grpc,
    pages_service_pb2_grpc,
    readiness_service_pb2_grpc,
    responses_service_pb2,
    responses_service_pb2_grpc,
)
from moa.task.v1 import image_task_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.common import errors
from services.common.byte_admission import ByteAdmission
from services.common.rpc.server import Server
from services.common.rpc.whole import whole_text
from services.quota_client import Recording
from services.router.body_check import BodyCheck
from services.router.pages import PagesServicer
from services.router.readiness import ReadinessServicer
from tests import forking

TIMEOUT_S = 20
MODULE = "tests.edge.upstream"
FAULT = "catalogue.yaml: model m: unknown field `fallbak`; did you mean 'fallback'?"
"""What is wrong with the catalogue of this router."""
STRANGER = "moa-stranger"


class Held:
    """What a test can see of calls, and what it holds back."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        """One release lets one more event of a held stream out."""
        self.entered = threading.Event()
        self.cancelled = threading.Event()
        self.calls = 0
        self.asked: list[str] = []
        """The keys that the edge asked about before it read a body."""
        self.recording = Recording()
        """Whether this router says that it can record what requests use."""
        self.told: dict[str, Any] = {}
        """The metadata of the latest count of tokens."""

    def reset(self) -> None:
        """Forget earlier calls."""
        self.__init__()  # type: ignore[misc]


async def _act(held: Held, asked: dict[str, Any], body: httpbody_pb2.HttpBody, context: Any) -> None:
    held.calls += 1
    # Those of this test: a call may hear that it is cancelled when the next one has begun.
    go, entered, cancelled = held.go, held.entered, held.cancelled
    match asked.get("act"):
        case "fail":
            kind = errors.BY_WORD[asked["reason"]]
            raise kind(asked["message"], param=asked.get("param", ""), retry_after_s=asked.get("retry_after_s"))
        case "bare":
            await context.abort(getattr(grpc.StatusCode, asked["code"]), asked["message"])
        case "cancel" if held.calls <= asked["times"]:
            await context.abort(grpc.StatusCode.CANCELLED, asked["message"])
        case "crash":
            raise RuntimeError("a secret detail")
        case "sse":
            for number in range(asked["events"]):
                if asked.get("held"):
                    await asyncio.to_thread(go.acquire, timeout=TIMEOUT_S)
                data = f'data: {{"response": "{number}"}}\n\n'.encode()
                await context.write(httpbody_pb2.HttpBody(content_type="text/event-stream", data=data))
                entered.set()
        case "hang":
            if asked.get("begin"):
                await context.write(httpbody_pb2.HttpBody(content_type="text/event-stream", data=b"data: 0\n\n"))
            entered.set()
            try:
                await asyncio.sleep(TIMEOUT_S)
            except asyncio.CancelledError:
                cancelled.set()
                raise
        case _:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            seen = {"metadata": metadata, "size": len(body.data), "content_type": body.content_type}
            await context.write(httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(seen).encode()))


def _asked(body: httpbody_pb2.HttpBody) -> dict[str, Any]:
    if len(body.data) > 10_000 or not body.content_type.startswith("application/json"):
        return {}
    try:
        parsed = json.loads(body.data)
    except ValueError:
        raise errors.Malformed("the body is not JSON") from None
    return parsed if isinstance(parsed, dict) else {}


class _Native(native_service_pb2_grpc.NativeServiceServicer):
    def __init__(self, held: Held) -> None:
        self.held = held

    async def GenerateText(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        await _act(self.held, _asked(request), request, context)

    async def CreateImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        await _act(self.held, _asked(request), request, context)

    async def EditImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        await _act(self.held, _asked(request), request, context)

    async def ListProviders(self, request: Any, context: Any) -> native_service_pb2.ListProvidersResponse:
        return native_service_pb2.ListProvidersResponse()

    async def ListProviderModels(self, request: Any, context: Any) -> native_service_pb2.ListProviderModelsResponse:
        if request.provider == "absent":
            raise errors.NotFound("unknown provider 'absent'", param="provider")
        return native_service_pb2.ListProviderModelsResponse(models=[request.provider])


class _OpenAI(openai_service_pb2_grpc.OpenAIServiceServicer):
    def __init__(self, held: Held) -> None:
        self.held = held

    async def CreateChatCompletion(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        await _act(self.held, _asked(request), request, context)

    async def CreateImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        await _act(self.held, _asked(request), request, context)

    CreateImageEdit = CreateImageVariation = CreateEmbedding = CreateImage  # type: ignore[assignment]

    async def ListModels(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(content_type="application/json", data=b'{"object":"list","data":[]}')

    async def GetModel(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        seen = {"id": request.model, "metadata": metadata}
        return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(seen).encode())


class _Responses(responses_service_pb2_grpc.ResponsesServiceServicer):
    def __init__(self, held: Held) -> None:
        self.held = held

    async def CreateResponse(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        await _act(self.held, _asked(request), request, context)

    async def CountInputTokens(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(content_type="application/json", data=b'{"input_tokens":1}')

    CancelResponse = GetResponse = DeleteResponse = ListInputItems = CountInputTokens  # type: ignore[assignment]
    CreateConversation = GetConversation = UpdateConversation = CountInputTokens
    DeleteConversation = CreateConversationItems = CountInputTokens
    ListConversationItems = GetConversationItem = CountInputTokens
    DeleteConversationItem = CountInputTokens


class _Text(text_service_pb2_grpc.TextServiceServicer):
    def __init__(self, held: Held) -> None:
        self.held = held

    async def GenerateText(self, request: Any, context: Any) -> None:  # type: ignore[override]
        if request.model == "absent":
            raise errors.ModelNotFound("unknown model 'absent'", param="model")
        go = self.held.go
        for word in ("Hello", "안녕"):
            if request.model == "held":
                await asyncio.to_thread(go.acquire, timeout=TIMEOUT_S)
            event = text_pb2.TextEvent(text=text_pb2.TextDelta(text=word))
            await context.write(text_service_pb2.GenerateTextResponse(events=[event]))

    async def GenerateWholeText(self, request: Any, context: Any) -> text_service_pb2.GenerateWholeTextResponse:
        return await whole_text(self.GenerateText, request, context)

    async def CountTokens(self, request: Any, context: Any) -> text_service_pb2.CountTokensResponse:
        self.held.told = seen = dict(context.invocation_metadata())
        return text_service_pb2.CountTokensResponse(prompt_tokens=1 if "x-moa-service" in seen else 7)


class _Image(image_service_pb2_grpc.ImageServiceServicer):
    async def GenerateImage(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await context.write(image_service_pb2.GenerateImageResponse())


class _Failing:
    """Methods of the dialects that the tests only make fail, by the full name that gRPC calls."""

    def __init__(self, held: Held) -> None:
        self.held = held

    async def body(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        await _act(self.held, _asked(request), request, context)

    async def inner_body(self, request: Any, context: Any) -> None:
        await _act(self.held, _asked(request.body), request.body, context)

    async def task_id(self, request: image_task_service_pb2.QueryImageTaskRequest, context: Any) -> None:
        await _act(self.held, json.loads(request.task_id), httpbody_pb2.HttpBody(), context)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what serves them."""
        task, google = image_task_service_pb2, google_service_pb2
        methods = {
            "moa.router.v1.AnthropicService/CreateMessage": (self.body, httpbody_pb2.HttpBody),
            "moa.router.v1.GoogleService/StreamGenerateContent": (self.inner_body, google.GoogleServiceRequest),
            "moa.task.v1.ImageTaskService/CreateImageTask": (self.body, httpbody_pb2.HttpBody),
            "moa.task.v1.ImageTaskQueryService/QueryImageTask": (self.task_id, task.QueryImageTaskRequest),
            "moa.task.v1.PredictionService/CreateVersionPrediction": (self.body, httpbody_pb2.HttpBody),
            "moa.task.v1.DeskTaskService/CreateDeskTask": (self.body, httpbody_pb2.HttpBody),
        }
        found = []
        for path, (method, request) in methods.items():
            service, _, name = path.partition("/")
            handler = grpc.unary_stream_rpc_method_handler(
                method,
                request_deserializer=request.FromString,
                response_serializer=httpbody_pb2.HttpBody.SerializeToString,
            )
            found.append(grpc.method_handlers_generic_handler(service, {name: handler}))
        return found


class _Keys:
    """Knows every key but `STRANGER`."""

    def __init__(self, held: Held) -> None:
        self.held = held

    async def identify(self, key: str) -> SimpleNamespace:
        self.held.asked.append(key)
        if key == STRANGER:
            raise errors.Unauthenticated("unknown API key")
        return SimpleNamespace(account_id=key)


def server(held: Held, room: ByteAdmission) -> Server:
    """Return the server, not yet started."""
    made = Server(service_token=None, admission=room, ready=lambda: not held.recording.refuses)
    native_service_pb2_grpc.add_NativeServiceServicer_to_server(_Native(held), made.grpc)
    openai_service_pb2_grpc.add_OpenAIServiceServicer_to_server(_OpenAI(held), made.grpc)
    responses_service_pb2_grpc.add_ResponsesServiceServicer_to_server(_Responses(held), made.grpc)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(_Text(held), made.grpc)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(_Image(), made.grpc)
    pages_service_pb2_grpc.add_PagesServiceServicer_to_server(PagesServicer(), made.grpc)
    readiness_service_pb2_grpc.add_ReadinessServiceServicer_to_server(
        ReadinessServicer(lambda: FAULT, recording=lambda: held.recording), made.grpc
    )
    made.grpc.add_generic_rpc_handlers((*_Failing(held).handlers(), BodyCheck(_Keys(held), room=room).handler()))
    for module, name in (
        (native_service_pb2, "NativeService"),
        (openai_service_pb2, "OpenAIService"),
        (responses_service_pb2, "ResponsesService"),
        (text_service_pb2, "TextService"),
        (image_service_pb2, "ImageService"),
    ):
        made.offer(module.DESCRIPTOR.services_by_name[name].full_name)
    return made


class Upstream:
    """The server in a thread of this process."""

    def __init__(self) -> None:
        self.held = Held()
        self.room = ByteAdmission()
        """Of large requests."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream")

    def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(TIMEOUT_S)

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> Server:
            made = server(self.held, self.room)
            self.port = await made.start("127.0.0.1:0")
            return made

        self._server: Server = self.run(start)
        return self

    def __exit__(self, *_: object) -> None:
        self.run(lambda: self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def mortal(port: int) -> Iterator[Forked | subprocess.Popen[bytes]]:
    """Run a router that can be killed."""
    environment = {"PYTHONPATH": f"{REPOSITORY / 'gen'}:{REPOSITORY}", "PATH": ""}
    process: Forked | subprocess.Popen[bytes]
    if forking.enabled:
        process = forking.fork(MODULE, environment, str(port))
    else:
        process = subprocess.Popen([sys.executable, "-m", MODULE, str(port)], cwd=REPOSITORY, env=environment)
    try:
        await_grpc(f"127.0.0.1:{port}", until=time.monotonic() + 60, alive=lambda: None)
        yield process
    finally:
        process.kill()
        process.wait()


async def _serve(port: int) -> None:
    made = server(Held(), ByteAdmission())
    await made.start(f"127.0.0.1:{port}")
    await made.grpc.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
