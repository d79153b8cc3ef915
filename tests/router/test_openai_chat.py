"""OpenAI's chat, by the official client through the real edge."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests
from openai import APIStatusError, BadRequestError, DefaultHttpxClient, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from moa.common.v1 import error_pb2
from moa.text.v1 import text_pb2
from services.common.errors import UpstreamRateLimited
from services.common.store import object_name
from tests.router.rig import KEY, OTHER_KEY, Played, Rig, called, ended, picture, said, text

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20) as made:
        yield made


def test_what_has_no_effect_is_told(client: OpenAI, played: Played) -> None:
    """Parameters that are taken without effect are named in a header, whole and streamed."""
    extra: dict[str, Any] = {"store": True, "metadata": {"a": "b"}, "verbosity": "low"}
    whole = client.chat.completions.with_raw_response.create(model="smart", messages=HI, extra_body=extra)
    assert whole.headers["x-moa-ignored"] == "store, metadata, verbosity"
    streamed = client.chat.completions.with_raw_response.create(
        model="smart", messages=HI, extra_body={"service_tier": "flex"}, stream=True
    )
    assert streamed.headers["x-moa-ignored"] == "service_tier"
    assert "x-moa-ignored" not in client.chat.completions.with_raw_response.create(model="smart", messages=HI).headers


def test_several_candidates_with_logprobs(client: OpenAI, played: Played) -> None:
    """`n` candidates come in order, each with its tokens' log probabilities."""
    token = text_pb2.TokenLogprob(token="a", logprob=-0.5, raw=b"a")
    top = text_pb2.TokenLogprob(token="a", logprob=-0.5, raw=b"a", top=[token])
    pieces = [text_pb2.TextEvent(candidate=n, text=text_pb2.TextDelta(text="a", logprobs=[top])) for n in range(2)]
    played.script = [text(*pieces), ended(candidates=2)]
    made = client.chat.completions.create(model="smart", messages=HI, n=2, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in made.choices] == [0, 1]
    for choice in made.choices:
        assert choice.logprobs
        assert choice.logprobs.content
        assert choice.logprobs.content[0].logprob == -0.5
        assert choice.logprobs.content[0].top_logprobs[0].bytes == [97]
    assert (played.texts[0].candidates, played.texts[0].sampling.top_logprobs) == (2, 1)


def test_parallel_tool_calls_stream(client: OpenAI, played: Played) -> None:
    """The client's own gathering of a stream finds both calls and their arguments."""
    played.script = [
        text(called(0, "f", '{"a"', "c1"), called(0, arguments=":1}"), called(1, "g", "{}", "c2")),
        ended(text_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"]
    with client.chat.completions.stream(model="smart", messages=HI, tools=tools) as stream:
        made = stream.get_final_completion()
    calls = made.choices[0].message.tool_calls
    assert calls
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in calls if c.type == "function"] == [
        ("c1", "f", {"a": 1}),
        ("c2", "g", {}),
    ]
    assert made.choices[0].finish_reason == "tool_calls"


def test_a_retry_waits_as_long_as_it_is_told(url: str, played: Played) -> None:
    """The client obeys `Retry-After` and succeeds on its second attempt."""
    first = UpstreamRateLimited("slow down", retry_after_s=1)
    waits: list[str] = []

    def hook(response: Any) -> None:
        if response.status_code == 429:
            waits.append(response.headers["retry-after"])
            played.refusal = None

    played.refusal = first
    web = DefaultHttpxClient(event_hooks={"response": [hook]})
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=1, timeout=20, http_client=web) as client:
        made = client.chat.completions.create(model="smart", messages=HI)
    assert made.choices[0].message.content == "Hello 안녕"
    assert waits == ["1"]


def image_message(link: str) -> Any:
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": link}}]
    return [{"role": "user", "content": parts}]


def test_a_linked_image_is_fetched(client: OpenAI, played: Played, site: str) -> None:
    """A link that the operator allows is fetched; the model gets its bytes."""
    client.chat.completions.create(model="smart", messages=image_message(f"{site}/picture.png"))
    image = played.texts[0].messages[0].parts[1].image
    assert (image.data, image.mime_type) == (picture(30, 20), "image/png")


def test_own_links_are_read_from_the_store(client: OpenAI, rig: Rig, url: str, played: Played) -> None:
    """The owner's bare link and anybody's signed one are read; another's bare one is refused."""
    mine, theirs = object_name("acc1", "png"), object_name("acc2", "png")
    for name in (mine, theirs):
        rig.run(partial(rig.store.put, name, picture(), content_type="image/png"))
    for link in (f"{url}/files/{mine}", rig.links.make(theirs)):
        client.chat.completions.create(model="smart", messages=image_message(link))
        assert played.texts.pop().messages[0].parts[1].image.data == picture()
    for link in (f"{url}/files/{theirs}", rig.links.make(theirs, now_s=1000), rig.links.make("absent.png")):
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(model="smart", messages=image_message(link))
        assert caught.value.param == "messages[0].content[1].image_url.url"


INSIDE = [
    "http://127.0.0.1:1/a.png",
    "https://127.0.0.1/a.png",
    "https://[::ffff:127.0.0.1]/a.png",
    "https://169.254.169.254/latest/meta-data/",
    "https://localhost/a.png",
    "http://example.com/a.png",
    "https://2130706433/a.png",
    "https://0x7f.1/a.png",
    "https://[",
    "https://[::1/a.png",
]


@pytest.mark.parametrize("link", INSIDE)
def test_a_link_to_the_inside_is_refused(client: OpenAI, played: Played, link: str) -> None:
    """What is not public https is refused as the caller's mistake, and no model is asked."""
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="smart", messages=image_message(link))
    assert caught.value.param == "messages[0].content[1].image_url.url"
    assert "messages[0].content[1].image_url.url: " in caught.value.message
    assert ("data: URI" in caught.value.message) == link.startswith("http:")
    assert played.texts == []


def test_a_link_that_is_no_image_is_refused(client: OpenAI, played: Played, site: str) -> None:
    """The content decides, not the name."""
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="smart", messages=image_message(f"{site}/page.html"))
    assert caught.value.code == "unsupported_media"


def test_nothing_is_fetched_for_a_stranger(url: str, rig: Rig, played: Played, site: str, monkeypatch: Any) -> None:
    """A key that is wrong or may not use the model makes no request of ours."""

    async def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr(rig.egress, "fetch", fetch)
    for key, status in (("wrong", 401), (OTHER_KEY, 403)):
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(APIStatusError) as caught:
                client.chat.completions.create(model="smart", messages=image_message(f"{site}/picture.png"))
            assert caught.value.status_code == status


def test_linked_images_in_the_other_calls(url: str, client: OpenAI, played: Played, site: str) -> None:
    """Google's fileData and OpenAI's images take links as well."""
    link = f"{site}/picture.png"
    client.images.generate(prompt="x", extra_body={"image": link})
    assert played.pictures[0].images[0].data == picture(30, 20)
    body = {"contents": [{"parts": [{"text": "x"}, {"fileData": {"fileUri": link, "mimeType": "image/png"}}]}]}
    got = requests.post(f"{url}/v1/models/smart:generateContent?key={KEY}", json=body, timeout=60)
    assert got.status_code == 200
    assert played.texts[0].messages[0].parts[1].image.data == picture(30, 20)
    data = {"model_id": "smart", "messages": [{"role": "user", "content": "x"}]}
    inline = {**data, "image_data": base64.b64encode(picture()).decode()}
    assert requests.post(f"{url}/generate/text", json=inline, headers={"x-api-key": KEY}, timeout=60).ok


def test_a_retired_model_answers_by_its_successor(client: OpenAI, played: Played) -> None:
    """The answer names who really answered, and its headers tell that the model is gone and what to use."""
    raw = client.chat.completions.with_raw_response.create(model="old-alias", messages=HI)
    assert raw.headers["x-moa-model"] == "smart"
    assert raw.headers["deprecation"] == "@1704153600"
    assert raw.headers["sunset"] == "Thu, 02 Jan 2025 00:00:00 GMT"
    assert raw.headers["link"] == '</v1/models/smart>; rel="successor-version"'
    assert played.texts[0].model == "smart"
    ending = client.chat.completions.with_raw_response.create(model="ending", messages=HI)
    assert ending.headers["x-moa-model"] == "ending"
    assert ending.headers["sunset"] == "Wed, 02 Jan 2999 00:00:00 GMT"
    assert "deprecation" not in client.chat.completions.with_raw_response.create(model="smart", messages=HI).headers


def test_a_retired_model_is_refused_where_the_operator_says_so(client: OpenAI, played: Played) -> None:
    """410, with the successor's name; no list shows what is gone."""
    with pytest.raises(APIStatusError, match="use smart") as caught:
        client.chat.completions.create(model="old-gone", messages=HI)
    assert caught.value.status_code == 410
    assert caught.value.body["code"] == "model_retired"  # type: ignore[index]
    names = [model.id for model in client.models.list()]
    assert "ending" in names
    assert not {"old-gone", "old-alias"} & set(names)
    assert client.models.retrieve("old-alias").id == "smart"
    with pytest.raises(NotFoundError):
        client.models.retrieve("absent")


def test_pieces_arrive_as_text(client: OpenAI, played: Played) -> None:
    """A stream's pieces join to the answer, with the usage last."""
    played.script = [text(said("a")), text(said("b")), ended()]
    stream = client.chat.completions.create(
        model="smart", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "ab"
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens == 12


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1/chat/completions", {"model": "smart"}), ("/openai/deployments/smart/chat/completions", {})],
)
def test_an_error_amid_an_answer_is_its_end(url: str, played: Played, path: str, model: dict[str, str]) -> None:
    """At OpenAI's paths and at Azure's: after what came before, and without a finish reason."""
    failed = text_pb2.TextEvent(
        error=error_pb2.ErrorDetail(reason=error_pb2.REASON_UNSUPPORTED, message="the model answered with an image")
    )
    played.script = [text(said("a")), text(said("b"), failed)]
    body = {**model, "messages": [{"role": "user", "content": "x"}], "stream": True}
    got = requests.post(url + path, json=body, headers={"api-key": KEY}, timeout=60)
    pieces = [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: {")]
    assert "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces[:-1]) == "ab"
    assert pieces[-1]["error"]["message"] == "the model answered with an image"
    assert not any(piece["choices"][0]["finish_reason"] for piece in pieces[:-1])


def test_a_model_is_listed_with_its_aliases(url: str) -> None:
    """A caller sees every name that a model is asked for by; asked for by an alias, it is the same model."""
    headers = {"x-api-key": KEY}
    listed = requests.get(f"{url}/v1/models", headers=headers, timeout=60).json()["data"]
    aliases = {each["id"]: each.get("aliases") for each in listed}
    assert (aliases["gpt-image-1"], aliases["smart"]) == (["painter"], None)
    assert requests.get(f"{url}/v1/models/painter", headers=headers, timeout=60).json() in listed
