"""A start with a real key and the catalogue that ships: models that nobody configured are listed and answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from threading import Thread
from typing import Any, NamedTuple

import openai
import pytest
import requests

from tests import stacks
from tests.e2e.conftest import Gateway
from tests.emulators.openai import OpenAIEmulator

NEW = "gpt-9-flash"
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


class Cloud(NamedTuple):
    """A gateway with nothing but a provider's key, and that provider."""

    gateway: Gateway
    upstream: OpenAIEmulator

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.gateway.url + "/v1", api_key=self.gateway.key, max_retries=5)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="emulator")
    thread.start()
    upstream = OpenAIEmulator()
    upstream.newer |= {NEW, "gpt-9-realtime", "text-embedding-9"}
    asyncio.run_coroutine_threadsafe(upstream.start(), loop).result(20)
    environment = {"OPENAI_API_KEY": "sk-good", "OPENAI_BASE_URL": upstream.base_url}
    names = ("auth", "text", "router", "edge")
    with stacks.gateway(tmp_path_factory.mktemp("any"), environment=environment, processes=names) as running:
        yield Cloud(Gateway(running), upstream)
    asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def listed(cloud: Cloud) -> dict[str, Any]:
    """Return the models by id, once the provider's own list has come."""
    until = time.monotonic() + 60
    while True:
        with cloud.client as client:
            found = {model.id: model.to_dict() for model in client.models.list()}
        if NEW in found:
            return found
        assert time.monotonic() < until
        time.sleep(0.05)


def test_openais_client_lists_and_uses_a_model_nobody_configured(cloud: Cloud) -> None:
    """It is in the list with what is known of it, which is nothing, and answers by its own name."""
    models = listed(cloud)
    new, old = models[NEW], models["gpt-4o"]
    assert (new["owned_by"], new["context_tokens"], new["prices"], new["capabilities"]) == (
        "openai-text",
        None,
        None,
        None,
    )
    assert old["context_tokens"] == 128_000
    assert old["prices"]["input"] == 2.5
    assert (old["input_modalities"], old["output_modalities"]) == (["text", "image"], ["text"])
    assert (old["retires"], old["successor"]) == ("2027-01-14", "openai-text/gpt-6-luna")
    assert models["text-embedding-9"]["owned_by"] == "openai-embedding"
    assert "gpt-9-realtime" not in models, "denied by the row's pattern"
    with cloud.client as client:
        raw = client.chat.completions.with_raw_response.create(model=NEW, messages=MESSAGES)
        assert raw.parse().choices[0].message.content
        assert (raw.headers["x-moa-provider"], raw.headers["x-moa-model"]) == ("openai-text", NEW)
        assert cloud.upstream.seen[-1].body["model"] == NEW
        raw = client.chat.completions.with_raw_response.create(model=f"{NEW}-latest", messages=MESSAGES)
        assert (raw.headers["x-moa-model"], raw.parse().model) == (NEW, NEW)


def test_a_model_that_is_not_there_is_asked_for_once(cloud: Cloud) -> None:
    """A 404 for a model tells clients not to try again: OpenAI's, set to five retries, sends one request."""
    listed(cloud)
    before = len(cloud.upstream.refused)
    with cloud.client as client:
        for name in ("gpt-9-flahs", "openai/gpt-none"):
            with pytest.raises(openai.NotFoundError) as refused:
                client.chat.completions.create(model=name, messages=MESSAGES)
            assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(cloud.upstream.refused) - before == 1, "only what names its provider reaches it"


def test_a_list_that_is_the_same_is_not_sent_again(cloud: Cloud) -> None:
    """The list has a tag; whoever has it is told 304 and nothing else, in OpenAI's form and in Google's."""
    listed(cloud)
    for headers in ({"authorization": f"Bearer {cloud.gateway.key}"}, {"x-goog-api-key": cloud.gateway.key}):
        url = cloud.gateway.url + "/v1/models"
        first = requests.get(url, headers=headers, timeout=20)
        assert first.status_code == 200
        again = requests.get(url, headers={**headers, "if-none-match": first.headers["etag"]}, timeout=20)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        other = requests.get(url, headers={**headers, "if-none-match": '"another"'}, timeout=20)
        assert (other.status_code, other.content) == (200, first.content)


def test_an_announced_end_is_told_of_a_model_that_nobody_configured(cloud: Cloud) -> None:
    """Its owner's date and successor are known, and every answer tells them; it answers until then, and while it is
    listed."""
    listed(cloud)
    with cloud.client as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
    assert raw.headers["x-moa-model"] == "gpt-4o"
    assert raw.headers["sunset"] == "Thu, 14 Jan 2027 00:00:00 GMT"
    assert raw.headers["deprecation"].startswith("@")
    assert raw.headers["link"] == '</v1/models/openai-text/gpt-6-luna>; rel="successor-version"'
