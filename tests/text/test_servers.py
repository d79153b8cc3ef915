"""Servers of one's own: what is known of their models by asking them, and what becomes of them when they go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.catalogue import Catalogue, ListedModel, Provider, load
from services.common.errors import MoaError, ModelNotFound
from services.providers.hosting.lists import ProviderLists
from services.providers.http.client import Outgoing
from services.providers.listing import KEPT_S
from services.providers.server import discovery
from services.providers.server.kinds.ollama import MOST_SHOWN
from services.text.servicer import OFFER
from tests.emulators.base import Emulator
from tests.text.servers import SERVERS, models

PROVIDER = Provider(id="p", adapter="server", makes="text", base_url="http://gpu1:8000/v1/")


def answered(answers: Mapping[str, Any], outgoing: Outgoing) -> bytes:
    """Return what a server answers. Raises ModelNotFound where it has nothing."""
    assert outgoing.url.host == "gpu1"
    answer = answers.get(outgoing.url.path)
    if outgoing.url.path == "/api/show" and answer is not None:
        answer = answer.get(json.loads(bytes(outgoing.body))["model"])
    if answer is None:
        raise ModelNotFound("not here", param="model")
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def discovered(
    answers: Mapping[str, Any], asked: list[str] | None = None, by: discovery.Discovery | None = None
) -> list[ListedModel]:
    """Return what is known of a server's models by its answers."""
    steps = (by or discovery.Discovery()).list_models(PROVIDER)
    outgoing = next(steps)
    try:
        while True:
            if asked is not None:
                asked.append(outgoing.url.path)
            try:
                body = answered(answers, outgoing)
            except MoaError as error:
                outgoing = steps.throw(error)
            else:
                outgoing = steps.send(body)
    except StopIteration as end:
        found: list[ListedModel] = end.value
        return found


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_tells_what_it_has(name: str) -> None:
    """Models, contexts that they run with, and abilities, in each server's own words; what is not told is not known."""
    assert discovered(SERVERS[name].answers) == list(SERVERS[name].known)


@pytest.mark.parametrize("junk", [b"", b"<html>", b"[]", b'{"data": 1}', b"{" * 5000, b'{"models": [{"key": 3}]}'])
@pytest.mark.parametrize("name", SERVERS)
def test_what_cannot_be_read_is_not_known(name: str, junk: bytes) -> None:
    """Whatever a server answers beside its list, its list stands."""
    answers = SERVERS[name].answers
    if "/v1/models" not in answers:
        return
    bare = discovered({"/v1/models": answers["/v1/models"], "/openapi.json": answers.get("/openapi.json", junk)})
    spoilt = dict.fromkeys(answers, junk) | {"/v1/models": answers["/v1/models"]}
    spoilt["/openapi.json"] = answers.get("/openapi.json", junk)
    assert discovered(spoilt) == bare


def test_a_server_that_is_known_is_asked_what_it_has() -> None:
    """And nothing else; of a long list only so much."""
    asked: list[str] = []
    discovered(SERVERS["vLLM"].answers, asked)
    assert asked == ["/v1/models", "/openapi.json"]
    many = [f"m{number}" for number in range(200)]
    asked.clear()
    answers = {"/v1/models": models(*many, owner="library"), "/api/version": {"version": "1"}}
    assert len(discovered(answers, asked)) == 200
    assert asked.count("/api/show") == MOST_SHOWN


def test_a_server_is_asked_again_what_may_have_changed() -> None:
    """Its list every time, and what it tells beside it when that list is another one, or some minutes have passed."""
    now = 0.0
    by = discovery.Discovery(lambda: now)
    asked: list[str] = []
    answers = dict(SERVERS["llama.cpp"].answers)
    discovered(answers, asked, by)
    answers["/v1/models"] = json.loads(json.dumps(answers["/v1/models"]).replace("1790000000", "1790000015"))
    answers["/props"] = {"default_generation_settings": {"n_ctx": 512}}
    assert discovered(answers, asked, by) == list(SERVERS["llama.cpp"].known)
    assert asked == ["/v1/models", "/props", "/v1/models"]
    now += KEPT_S
    assert {model.context_tokens for model in discovered(answers, asked, by)} == {512}
    answers = {"/v1/models": models("other", owner="llamacpp"), "/props": {"default_generation_settings": {"n_ctx": 9}}}
    assert [(model.id, model.context_tokens) for model in discovered(answers, asked, by)] == [("other", 9)]


def test_a_list_that_cannot_be_had_is_an_error() -> None:
    """As the server's list says it, not the last of what else was tried."""
    with pytest.raises(ModelNotFound, match="not here"):
        discovered({})


class Server(Emulator):
    """A server of one's own, which may go away and come back with other models."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: Mapping[str, Any] = SERVERS["vLLM"].answers
        self.down = False
        self.hangs = False

    def routes(self) -> list[web.RouteDef]:
        """Return its routes."""
        return [web.route("*", "/{path:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            raise web.HTTPServiceUnavailable
        if self.hangs:
            await asyncio.Event().wait()
        answer = self.answers.get(request.path)
        return web.json_response(answer) if answer is not None else web.json_response({}, status=404)


class Lists:
    """What is known of the server that the environment names, over a clock of the test's own."""

    def __init__(self, upstream: Server, path: Path) -> None:
        self.time = 0.0
        environment = {"MOA_SERVERS": f"gpu1={upstream.url}"}
        path.write_text("providers: []\nmodels: []\n")
        self.catalogue = load(path, environment)
        self.targets = OFFER.targets(environment)
        self.lists = ProviderLists(lambda: self.catalogue, [self.targets], clock=lambda: self.time, whole_s=60)

    async def joined(self) -> Catalogue:
        """Return the catalogue with what is listed after a while."""
        self.time += discovery.EVERY_S
        return self.catalogue.with_listed(await self.lists.current(1000))


@pytest.fixture
async def upstream() -> AsyncIterator[Server]:
    async with Server() as made:
        yield made


@pytest.fixture
async def lists(upstream: Server, tmp_path: Path) -> AsyncIterator[Lists]:
    made = Lists(upstream, tmp_path / "catalogue.yaml")
    yield made
    await made.targets.close()


async def test_one_base_url_is_all_that_is_said(lists: Lists) -> None:
    """Its models have the name of the server before theirs, and none where nobody else has them."""
    catalogue = await lists.joined()
    assert [model.full_id for model in catalogue.discovered] == ["gpu1-text/Qwen/Qwen3-8B", "gpu1-text/tuned"]
    for name in ("gpu1/tuned", "tuned", "gpu1-text/tuned", "Qwen/Qwen3-8B"):
        model = catalogue.find(name)
        assert (model.provider, model.context_tokens, model.is_listed) == ("gpu1-text", 40960, True)
    price = catalogue.find("tuned").price()
    assert price is not None
    assert not catalogue.find("tuned").lacks_price


async def test_a_server_that_goes_away_leaves_its_models(lists: Lists, upstream: Server) -> None:
    """They are unavailable, with the reason, until it is back, and what it has then is what there is."""
    await lists.joined()
    upstream.down = True
    catalogue = await lists.joined()
    assert [model.id for model in catalogue.discovered] == ["Qwen/Qwen3-8B", "tuned"]
    assert catalogue.unavailable("gpu1-text")
    upstream.down, upstream.hangs = False, True
    lists.lists._whole_s = 0.05  # noqa: SLF001  # for what never comes; whoever answers has a minute
    catalogue = await lists.joined()
    lists.lists._whole_s = 60  # noqa: SLF001
    assert catalogue.unavailable("gpu1-text") == "it did not answer in time"
    upstream.hangs = False
    upstream.answers = SERVERS["llama-cpp-python"].answers
    catalogue = await lists.joined()
    assert [model.id for model in catalogue.discovered] == ["tiny"]
    assert catalogue.unavailable("gpu1-text") == ""


async def test_whoever_asks_the_server_knows_what_is_listed(lists: Lists, upstream: Server, tmp_path: Path) -> None:
    """The process that lists is told when it is another list, and asks by the server's own names."""
    told: list[list[str]] = []
    lists.lists = ProviderLists(
        lambda: lists.catalogue,
        [lists.targets],
        changed=lambda listed: told.append([model.upstream for model in listed["gpu1-text"].models.values()]),
        clock=lambda: lists.time,
    )
    await lists.joined()
    await lists.joined()
    upstream.answers = SERVERS["llama.cpp"].answers
    await lists.joined()
    assert told == [["", ""], ["/models/gemma-3-4b.gguf", ""]]
