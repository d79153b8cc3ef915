"""One request is one trace: from the edge through every process to the provider, and on to what is done later."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import requests

from deploy.local.ports import Ports
from tests import stacks
from tests.e2e.conftest import Gateway
from tests.e2e.test_native import DRAW as PICTURE
from tests.emulators.collector import Collector, Told, collecting
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.receiver import Receiver
from tests.emulators.script import Counts, Script

Running = tuple[Gateway, Collector, int]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that records every second trace, its collector, and the port where its provider will be."""
    root: Path = tmp_path_factory.mktemp("traced")
    ports = Ports()
    told, provider = ports.any(), ports.any()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{told}",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=gateways%2C%20all",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{provider}/v1",
        "OPENAI_API_KEY": "sk-good",
        "MOA_EGRESS_ALLOW": "127.0.0.1",
    }
    with collecting(f"127.0.0.1:{told}") as collector, stacks.gateway(root, environment=environment) as stack:
        yield Gateway(stack), collector, provider


@pytest.fixture
async def provider(running: Running) -> AsyncIterator[OpenAIEmulator]:
    """The cloud provider."""
    emulator = OpenAIEmulator()
    await emulator.start(running[2])
    yield emulator
    await emulator.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


class Asked:
    """A caller's own span: what the gateway does for it is within."""

    def __init__(self, *, recorded: bool = True, flag: str = "01") -> None:
        # Of two ids one is recorded: Envoy's sampler takes their first eight bytes modulo a million.
        self.trace_id = ("00" if recorded else "ff") * 8 + os.urandom(8).hex()
        self.span_id = os.urandom(8).hex()
        self.header = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{flag}"}


def post(gateway: Gateway, path: str, body: object, asked: Asked) -> requests.Response:
    headers = {"X-API-Key": gateway.key, **asked.header}
    return requests.post(gateway.url + path, json=body, headers=headers, timeout=120)


def ended(*names: str) -> Callable[[list[Told]], bool]:
    """Return the condition that spans of these names have all come, each as `name` or `service name`.

    Each process tells its own by itself: one that has come says nothing of another's.
    """
    return lambda spans: set(names) <= {word for span in spans for word in (span.name, f"{span.service} {span.name}")}


def one(spans: list[Told], name: str, service: str = "") -> Told:
    """Return the only span of a name."""
    [found] = [span for span in spans if span.name == name and service in ("", span.service)]
    return found


CHAT = "moa.router.v1.OpenAIService/CreateChatCompletion"
DRAW = "moa.image.v1.ImageService/GenerateImage"
WHOLE = "moa.text.v1.TextService/GenerateWholeText"
MODEL = "generate_content moa-tiny-image"
CREATION = "moa.task.v1.ImageTaskService/CreateImageTask"


async def test_a_chat_is_one_trace(running: Running, provider: OpenAIEmulator) -> None:
    """The caller's span, the edge, the router, its call to the model, the text service, the provider's HTTP."""
    gateway, collector, port = running
    provider.scripts.append(Script(text=("Hi ", "there."), counts=Counts(prompt=7, completion=2)))
    asked = Asked()
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "the secret of the house"}],
        "max_tokens": 9,
    }
    answer = await asyncio.to_thread(post, gateway, "/v1/chat/completions", body, asked)
    assert answer.status_code == 200, answer.text
    route = "POST /v1/chat/completions"
    spans = await asyncio.to_thread(collector.trace, asked.trace_id, ended(route, CHAT, WHOLE, "POST"))
    edge, router = one(spans, route), one(spans, CHAT)
    model = one(spans, "chat gpt-4o-mini")
    text, http = one(spans, WHOLE), one(spans, "POST")
    assert [edge.parent_id, router.parent_id, model.parent_id, text.parent_id, http.parent_id] == [
        asked.span_id,
        edge.span_id,
        router.span_id,
        model.span_id,
        text.span_id,
    ]
    assert [s.service for s in (edge, router, model, text, http)] == [
        "moa-edge",
        "moa-router",
        "moa-router",
        "moa-text",
        "moa-text",
    ]
    assert [s.kind for s in (edge, router, model, text, http)] == ["SERVER", "SERVER", "CLIENT", "SERVER", "CLIENT"]
    assert model.attributes.pop("gen_ai.response.time_to_first_chunk") > 0
    assert model.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stream": False,
        "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2,
        "moa.provider": "openai-text",
        "moa.model": "gpt-4o-mini",
    }
    request_id = answer.headers["x-request-id"]
    assert edge.attributes["moa.request_id"] == router.attributes["moa.request_id"] == request_id
    assert edge.attributes["http.route"] == "/v1/chat/completions"
    assert router.attributes["moa.tokens"] == 9
    assert router.attributes["rpc.response.status_code"] == "OK"
    assert http.attributes["server.port"] == port
    assert http.attributes["http.response.status_code"] == 200
    assert not any(span.failed for span in spans)


async def test_each_attempt_has_its_span(running: Running, provider: OpenAIEmulator) -> None:
    """A provider that fails is asked again: what failed, how, and what went well, one after another."""
    gateway, collector, _ = running
    provider.scripts.append(Script(refuse="upstream_failed"))
    asked = Asked()
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = await asyncio.to_thread(post, gateway, "/v1/chat/completions", body, asked)
    assert answer.status_code == 200, answer.text
    spans = await asyncio.to_thread(collector.trace, asked.trace_id, ended(CHAT, "POST /v1/chat/completions"))
    spans = await asyncio.to_thread(
        collector.trace, asked.trace_id, lambda found: sum(s.name == "POST" for s in found) == 2
    )
    attempts = [span for span in spans if span.name == "chat gpt-4o-mini"]
    assert [(span.failed, span.attributes.get("error.type")) for span in attempts] == [
        (True, "upstream_failed"),
        (False, None),
    ]
    assert [span.attributes["gen_ai.request.stream"] for span in attempts] == [True, True]
    assert {span.parent_id for span in attempts} == {one(spans, CHAT).span_id}
    assert sorted(span.attributes["http.response.status_code"] for span in spans if span.name == "POST") == [200, 500]


def test_a_pictures_stages(running: Running) -> None:
    """What the inference service does with an order: load the model, let it wait, make it."""
    gateway, collector, _ = running
    asked = Asked()
    body = {**PICTURE, "num_inference_steps": 2}
    answer = post(gateway, "/create/image", body, asked)
    assert answer.status_code == 200, answer.text
    spans = collector.trace(asked.trace_id, ended("POST /create/image", f"moa-inference {DRAW}", f"moa-router {MODEL}"))
    drawing = one(spans, DRAW, "moa-inference")
    stages = [span for span in spans if span.parent_id == drawing.span_id]
    assert [stage.name for stage in sorted(stages, key=lambda s: s.ended_at)] == [
        "load model",
        "wait in queue",
        "make images",
    ]
    model = one(spans, MODEL)
    assert drawing.parent_id == model.span_id
    assert (model.attributes["gen_ai.provider.name"], model.attributes["moa.images"]) == ("moa", 1)


def test_a_task_and_its_webhook_are_in_the_trace_of_its_creation(running: Running, receiver: Receiver) -> None:
    """Work that another process does later, and the word of its end."""
    gateway, collector, _ = running
    asked = Asked()
    body = {"model": "moa-tiny-image", "prompt": "a blue square", "callback_url": receiver.url}
    made = post(gateway, "/api/image/gen", body, asked)
    assert made.status_code == 200, made.text
    task_id = made.json()["data"]["task_id"]
    spans = collector.trace(asked.trace_id, ended("run task", "deliver webhook", f"moa-router {DRAW}", CREATION))
    creation = one(spans, CREATION)
    run, told = one(spans, "run task"), one(spans, "deliver webhook")
    assert run.parent_id == told.parent_id == creation.span_id
    assert (run.kind, run.attributes["moa.task"], run.attributes["moa.attempt"]) == ("CONSUMER", task_id, 1)
    assert (told.attributes["moa.task"], told.attributes["http.response.status_code"]) == (task_id, 204)
    assert one(spans, DRAW, "moa-router").parent_id == run.span_id


@pytest.mark.parametrize("flag", ["00", "01"])
def test_the_share_decides_and_not_the_callers_flag(running: Running, flag: str) -> None:
    """Of two traces one is recorded by its id, whole or not at all; an id that is none begins a new trace."""
    gateway, collector, _ = running
    body = {"model": "moa-tiny-chat", "messages": [{"role": "user", "content": "Hello!"}]}
    left_out, taken = Asked(recorded=False, flag=flag), Asked(recorded=True, flag=flag)
    for asked in (left_out, taken):
        assert post(gateway, "/v1/chat/completions", body, asked).status_code == 200
    collector.trace(taken.trace_id, ended("POST /v1/chat/completions", CHAT, "generate"))
    assert not [span for span in collector.spans if span.trace_id == left_out.trace_id]


def test_what_it_says_to_the_collector_holds_no_words(running: Running) -> None:
    """Prompts, answers, keys, and what stands in a query are in no span; the headers for the collector come along."""
    gateway, collector, _ = running
    asked = Asked()
    query = f"/v1beta/models/moa-tiny-chat:generateContent?key={gateway.key}"
    body = {"contents": [{"parts": [{"text": "my unmistakable words"}]}]}
    answer = requests.post(gateway.url + query, json=body, headers=asked.header, timeout=60)
    assert answer.status_code == 200, answer.text
    said = answer.json()["candidates"][0]["content"]["parts"][0]["text"]
    collector.trace(asked.trace_id, ended("POST /v1beta/{model=models/**}:generateContent", "generate"))
    everything = b"".join(collector.raw)
    for secret in ("unmistakable", said, gateway.key, gateway.key[-12:], "sk-good", "house"):
        assert secret.encode() not in everything
    assert {metadata.get("x-team") for metadata in collector.metadata} == {"gateways, all"}


def test_a_collector_that_is_away_holds_up_nothing(running: Running) -> None:
    """Requests are answered as before; what could not be told is lost."""
    gateway, collector, _ = running
    body = {"model": "moa-tiny-chat", "messages": [{"role": "user", "content": "Hello!"}]}
    collector.stop()
    try:
        for _ in range(5):
            assert post(gateway, "/v1/chat/completions", body, Asked()).status_code == 200
    finally:
        collector.start(collector.address)
    # Each process finds it again by itself; a trace that is begun before is not whole.
    for _ in range(20):
        asked = Asked()
        assert post(gateway, "/v1/chat/completions", body, asked).status_code == 200
        with contextlib.suppress(AssertionError):
            collector.trace(asked.trace_id, ended("POST /v1/chat/completions", CHAT, "generate"), within_s=5)
            break
    else:
        pytest.fail("the collector was not found again")
