"""An `Idempotency-Key` on every paid call, in every dialect: one answer, however often it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import openai
import pytest
import requests

from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.common import dialects
from services.common.errors import IdempotencyKeyReused
from tests.dialects import ANSWERING
from tests.dialects.rig import GIVEN, Asked
from tests.emulators.script import Script
from tests.matrix.conftest import CLOUDS, WAIT_S, World
from tests.matrix.test_matrix import LOCAL

CLOUD = f"{CLOUDS[0]}-model"


def _posted(asked: Asked, world: World, key: str) -> requests.Response:
    headers = {"X-API-Key": world.key, "Idempotency-Key": key}
    return requests.post(world.url + asked.path, headers=headers, timeout=60, **asked.how)


def openai_chat(world: World, words: str, key: str) -> requests.Response:
    return _posted(ANSWERING["openai"].text(CLOUD, words), world, key)


def _asks() -> Iterator[tuple[str, str, Callable[[str], Asked], bool]]:
    """Yield each paid request: its dialect, a name, what asks for it in words, and whether it is for images."""
    for name, rig in ANSWERING.items():
        yield name, "text", partial(rig.text, CLOUD), False
        yield name, "stream", partial(rig.text, CLOUD, stream=True), False
        if rig.image is not None:
            yield name, "image", partial(rig.image, LOCAL), True
        for number, change in enumerate(rig.changes):
            yield name, f"change-{number}", partial(change, LOCAL, picture=GIVEN), True


ASKS = [pytest.param(dialect, ask, images, id=f"{dialect}-{name}") for dialect, name, ask, images in _asks()]


@pytest.mark.parametrize(("dialect", "ask", "images"), ASKS)
def test_one_answer_a_key(world: World, dialect: str, ask: Callable[[str], Asked], images: bool) -> None:
    """Asked again: the same bytes and cost, marked, with the first one's id, and no provider is asked. Other words
    under the key are 422 in the dialect's own envelope."""
    key = str(uuid4())
    first, again, other = (
        _posted(ask(words), world, key) for words in ("a red circle", "a red circle", "a blue square")
    )
    assert (first.status_code, again.status_code) == (200, 200), first.text + again.text
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-moa-original-request-id"] == first.headers["x-request-id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    for name in ("content-type", "x-moa-model", "x-moa-provider", "x-moa-cost"):
        assert again.headers.get(name) == first.headers.get(name)
    assert len(world.emulators[CLOUDS[0]].seen) == (0 if images else 1)
    assert other.status_code == 422
    refusal = IdempotencyKeyReused("this idempotency key was used for another request", param="Idempotency-Key")
    assert other.json() == dialects.DIALECTS[dialect].render(refusal, request_id=other.headers["x-request-id"])


def test_grpc_calls_take_it_as_metadata(world: World) -> None:
    """Streams and whole answers: the same messages, the marks in the initial metadata; other words INVALID_ARGUMENT."""
    address = world.url.removeprefix("http://")
    asked = text_service_pb2.GenerateTextRequest(model=CLOUD, stream=True)
    asked.messages.add(role=text_pb2.ROLE_USER).parts.add(text="hi")
    image = image_service_pb2.GenerateImageRequest(model=LOCAL, prompt="a red circle", stream=True)
    with grpc.insecure_channel(address) as channel:
        text = text_service_pb2_grpc.TextServiceStub(channel)
        images = image_service_pb2_grpc.ImageServiceStub(channel)
        whole = text_service_pb2.GenerateWholeTextRequest(request=asked)

        def metadata() -> tuple[tuple[str, str], ...]:
            return (("x-api-key", world.key), ("idempotency-key", str(uuid4())))

        streams: list[tuple[Any, Any]] = [(text.GenerateText, asked), (images.GenerateImage, image)]
        for call, request in streams:
            known = metadata()
            first = call(request, metadata=known, timeout=60)
            said = list(first)
            again = call(request, metadata=known, timeout=60)
            assert list(again) == [message for message in said if message.events]
            assert ("idempotent-replayed", "true") in again.initial_metadata()
        known = metadata()
        answer = text.GenerateWholeText(whole, metadata=known, timeout=60)
        repeated, told = text.GenerateWholeText.with_call(whole, metadata=known, timeout=60)
        assert repeated == answer
        assert ("idempotent-replayed", "true") in told.initial_metadata()
        whole.request.model = "local-chat"
        with pytest.raises(grpc.RpcError) as caught:
            text.GenerateWholeText(whole, metadata=known, timeout=60)
    trailers: Any = caught.value.trailing_metadata()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(trailers)["x-moa-reason"] == "idempotency_key_reused"
    assert len(world.emulators[CLOUDS[0]].seen) == 2


def test_openais_client_retries_into_the_answer(world: World) -> None:
    """A connection that breaks amid the answer: the client's own retry is told that the request runs, waits, and has
    the answer of the work that went on. The provider was asked once."""
    script = Script(hold_at=-1)
    world.emulators[CLOUDS[0]].scripts.append(script)
    tries: list[int] = []

    class Breaking(httpx2.HTTPTransport):
        """Breaks the first connection when the provider is at work, and lets it go on when the client is back."""

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            tries.append(1)
            if len(tries) == 1:
                threading.Thread(target=super().handle_request, args=(request,), daemon=True).start()
                world.loop.run(script.held.wait)
                raise httpx2.ReadError("the connection broke", request=request)
            answer = super().handle_request(request)
            if len(tries) == 2:
                assert answer.status_code == 409
                assert answer.headers["retry-after"]
                world.loop.call(script.gate.set)
            return answer

    with openai.OpenAI(
        base_url=f"{world.url}/v1",
        api_key=world.key,
        max_retries=10,
        http_client=openai.DefaultHttpxClient(transport=Breaking()),
    ) as client:
        made = client.chat.completions.create(
            model=CLOUD,
            messages=[{"role": "user", "content": "hi"}],
            extra_headers={"Idempotency-Key": str(uuid4())},
        )
    assert made.choices[0].message.content == "".join(script.text)
    assert len(world.emulators[CLOUDS[0]].seen) == 1
    assert len(tries) >= 3


def test_of_two_at_once_one_is_done(world: World) -> None:
    """While the first runs the second is 409 with the time to wait, in OpenAI's envelope; then both have one answer."""
    script = Script(hold_at=-1)
    world.emulators[CLOUDS[0]].scripts.append(script)
    key = str(uuid4())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(openai_chat, world, "hi", key)
        world.loop.run(script.held.wait)
        second = openai_chat(world, "hi", key)
        world.loop.call(script.gate.set)
        answered = first.result(WAIT_S)
    assert second.status_code == 409
    assert second.headers["retry-after"]
    assert second.json()["error"]["type"] == "idempotency_error"
    assert second.json()["error"]["code"] == "request_running"
    assert openai_chat(world, "hi", key).content == answered.content


def test_what_a_provider_refused_is_asked_again(world: World) -> None:
    """Nothing was charged: the key is free again, and the next try is answered."""
    key = str(uuid4())
    world.play(CLOUDS[0], refuse="content_policy")
    assert openai_chat(world, "hi", key).status_code == 400
    again = openai_chat(world, "hi", key)
    assert again.status_code == 200
    assert "idempotent-replayed" not in again.headers
