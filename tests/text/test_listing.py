"""What providers list: read of each vendor's own form, kept for all routers, and never in the way of what is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from moa.provider.v1 import listing_service_pb2 as pb
from services.catalogue import MOST_LISTED, ListedModel, Provider, load
from services.common.errors import MoaError, UpstreamBroken, UpstreamFailed
from services.providers.anthropic import listing as anthropic
from services.providers.aws import listing as aws_listing
from services.providers.azure import listing as azure
from services.providers.google import listing as google
from services.providers.hosting.lists import LEAST_S, ListingServicer, ProviderLists
from services.providers.listing import KEPT_S, Lister, bounded
from services.providers.openai import listing as openai
from services.providers.server import discovery
from services.text.servicer import OFFER
from tests.emulators import anthropic_requests, aws
from tests.emulators.anthropic import AnthropicEmulator
from tests.emulators.azure import AzureEmulator
from tests.emulators.bedrock import CLAUDE, NOVA, OPUS, BedrockEmulator
from tests.emulators.gemini import MODELS, GeminiEmulator
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.openai_responses import ResponsesEmulator
from tests.text.harness import Row, chat, text_of, text_service, write_catalogue

KEY = "sk-good"
WILD: Row = {"id": "*", "provider": "p"}


def steps(lister: Lister, *answers: Any) -> tuple[list[str], list[ListedModel]]:
    """Return what a lister asks for, and what it makes of the answers; an error among them is raised there."""
    listing = lister(Provider(id="p", adapter="x", makes="text", base_url="http://host/v1"))
    asked = [str(next(listing).url)]
    try:
        for answer in answers:
            sent = listing.throw(answer) if isinstance(answer, MoaError) else listing.send(msgspec.json.encode(answer))
            asked.append(str(sent.url))
    except StopIteration as end:
        return asked, end.value
    raise AssertionError(f"more is asked for: {asked[-1]}")


def test_openais_form_tells_contexts_where_servers_do() -> None:
    """vLLM, OpenRouter and Groq tell contexts beside, each by its own word; OpenAI tells none."""
    asked, found = steps(
        openai.list_models,
        {
            "data": [
                {"id": "gpt-9", "created": 17, "owned_by": "system"},
                {"id": "qwen", "max_model_len": 4096},
                {"id": "a/b", "context_length": 100, "created": None},
                {"id": "c", "context_window": 200, "max_completion_tokens": 50},
            ]
        },
    )
    assert asked == ["http://host/v1/models"]
    assert [(m.id, m.created, m.context_tokens, m.max_output_tokens) for m in found] == [
        ("gpt-9", 17, 0, 0),
        ("qwen", 0, 4096, 0),
        ("a/b", 0, 100, 0),
        ("c", 0, 200, 50),
    ]


def test_googles_pages_are_read_to_the_end() -> None:
    """Each page names the next; methods tell what a model makes."""
    asked, found = steps(
        google.list_models,
        {"models": [{"name": "models/a", "supportedGenerationMethods": ["generateContent"]}], "nextPageToken": "x&y"},
        {
            "models": [
                {"name": "models/b", "supportedGenerationMethods": ["embedContent"], "inputTokenLimit": 9},
                {"name": "models/c-image", "supportedGenerationMethods": ["generateContent"]},
                {"name": "models/imagen-9", "supportedGenerationMethods": ["predict"]},
                {"name": "models/veo-9", "supportedGenerationMethods": ["predictLongRunning"]},
            ]
        },
    )
    assert asked == ["http://host/v1/models?pageSize=1000", "http://host/v1/models?pageSize=1000&pageToken=x%26y"]
    makes = [(m.id, m.makes) for m in found]
    assert makes == [("a", "text"), ("b", "embedding"), ("c-image", "image"), ("imagen-9", "image"), ("veo-9", "other")]


def test_bedrock_lists_what_may_be_asked_for() -> None:
    """A model that is reached only through a profile is listed as the profile, one of the account's own by its ARN."""
    models = {
        "modelSummaries": [
            {"modelId": "a.text", "outputModalities": ["TEXT"], "inputModalities": ["TEXT", "IMAGE"]},
            {"modelId": "b.text", "outputModalities": ["TEXT"], "inferenceTypesSupported": ["INFERENCE_PROFILE"]},
            {"modelId": "c.embed", "outputModalities": ["EMBEDDING"], "inferenceTypesSupported": ["ON_DEMAND"]},
        ]
    }
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x1"
    behind = {"models": [{"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/b.text"}]}
    profiles = [
        {"inferenceProfileSummaries": [{"inferenceProfileId": "us.b.text", **behind}], "nextToken": "n"},
        {
            "inferenceProfileSummaries": [
                {"inferenceProfileId": "x1", "inferenceProfileArn": arn, "type": "APPLICATION", **behind},
                {"inferenceProfileId": "us.off", "status": "INACTIVE"},
            ]
        },
    ]
    asked, found = steps(aws_listing.list_models, models, *profiles)
    assert asked[-1] == "http://host/v1/inference-profiles?maxResults=1000&nextToken=n"
    assert [(m.id, m.makes, m.base) for m in found] == [
        ("a.text", "text", ""),
        ("c.embed", "embedding", ""),
        ("us.b.text", "text", ""),
        (arn, "text", "b.text"),
    ]
    assert found[0].capabilities == {"vision"}
    _, without = steps(aws_listing.list_models, models, UpstreamFailed("not permitted"))
    assert [m.id for m in without] == ["a.text", "c.embed"]


def test_anthropics_pages_are_read_to_the_end() -> None:
    """The last id of a page leads to the next; abilities are told as there, as not there, or not at all."""
    able = {"image_input": {"supported": True}, "structured_outputs": {"supported": False}, "thinking": "perhaps"}
    first = {"id": "claude-a", "created_at": "2026-01-02T00:00:00Z", "max_input_tokens": 9, "max_tokens": 5}
    asked, found = steps(
        anthropic.list_models,
        {"data": [{**first, "capabilities": able}], "has_more": True, "last_id": "claude-a&b"},
        {"data": [{"id": "claude-b", "created_at": "long ago", "max_tokens": "many"}], "has_more": False},
    )
    assert asked == ["http://host/v1/v1/models?limit=1000", "http://host/v1/v1/models?limit=1000&after_id=claude-a%26b"]
    assert [(m.id, m.makes, m.created, m.context_tokens, m.max_output_tokens) for m in found] == [
        ("claude-a", "text", 1767312000, 9, 5),
        ("claude-b", "text", 0, 0, 0),
    ]
    assert found[0].capabilities == {"vision"}
    assert found[0].lacks == {"json_schema"}


def test_azure_lists_deployments_that_are_ready() -> None:
    """A deployment is known by its model; one that is being made is not there yet."""
    _, found = steps(
        azure.list_models,
        {
            "data": [
                {"id": "mine", "model": "gpt-4o"},
                {"id": "v", "model": "text-embedding-3-small"},
                {"id": "x", "status": "creating"},
            ]
        },
    )
    assert [(m.id, m.base, m.makes) for m in found] == [
        ("mine", "gpt-4o", "text"),
        ("v", "text-embedding-3-small", "embedding"),
    ]


_ODD: list[Any] = [7, None, "x", [], {"id": 5}, {"id": None}, {"name": 1}, {}]
"""Entries of no list."""


@pytest.mark.parametrize("page", [{"data": [*_ODD, {"id": "a"}, *_ODD]}, [*_ODD, {"id": "a"}, *_ODD]])
def test_an_entry_that_cannot_be_read_takes_no_other_with_it(page: Any) -> None:
    """A list is read as far as it can be, also one that comes bare: a provider has its other models all the same."""
    assert [model.id for model in steps(openai.list_models, page)[1]] == ["a"]


def test_odd_entries_of_other_lists_are_left_out() -> None:
    """The same of Google's and Anthropic's pages, Azure's deployments, and servers of one's own."""
    google_page = {"models": [*_ODD, {"name": "models/a", "supportedGenerationMethods": 7}, {"name": "models/b"}]}
    assert [model.id for model in steps(google.list_models, google_page)[1]] == ["b"]
    assert [model.id for model in steps(azure.list_models, {"data": [*_ODD, {"id": "c"}]})[1]] == ["c"]
    assert [model.id for model in steps(anthropic.list_models, {"data": [*_ODD, {"id": "e"}]})[1]] == ["e"]
    vllm = {"data": [*_ODD, {"id": "d", "owned_by": "vllm"}]}
    found = steps(discovery.Discovery().list_models, vllm, {"paths": {"/v1/chat/completions": {}}})[1]
    assert [(model.id, model.makes) for model in found] == [("d", "text")]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"data": 7}', b'{"data": [{"id": 7}]}', b"[" * 100_000])
def test_a_list_that_is_none_is_refused(body: bytes) -> None:
    """Whatever comes instead of a list breaks the listing, and nothing else."""
    listing = openai.list_models(Provider(id="p", adapter="x", makes="text", base_url="http://host"))
    next(listing)
    with pytest.raises(UpstreamBroken):
        listing.send(body)


def test_what_a_list_says_is_bounded() -> None:
    """Ids that no path can have, doubles, and numbers beyond sense are left out, and so is what goes on for ever."""
    bad = ["../../files", "a b", "", "x" * 300, "\u202e", "a//b", "ok", "ok"]
    models = [ListedModel(id=name, context_tokens=-5, created=10**30, max_output_tokens=2**39) for name in bad]
    found = bounded(models)
    assert list(found) == ["ok"]
    assert (found["ok"].context_tokens, found["ok"].created, found["ok"].max_output_tokens) == (0, 0, 10**9)
    assert len(bounded(ListedModel(id=f"m{number}") for number in range(MOST_LISTED + 7))) == MOST_LISTED


@pytest.mark.parametrize(
    ("emulator", "row", "environment", "expected"),
    [
        (
            OpenAIEmulator,
            lambda up: {"adapter": "openai", "base_url": up.base_url, "credentials": {"api_key": "KEY"}},
            {"KEY": KEY},
            {"gpt-4o", "gpt-4o-mini", "o4-mini"},
        ),
        (
            ResponsesEmulator,
            lambda up: {"adapter": "openai", "base_url": up.base_url, "credentials": {"api_key": "KEY"}},
            {"KEY": KEY},
            {"gpt-4o", "gpt-4o-mini", "o4-mini"},
        ),
        (
            OpenAIEmulator,
            lambda up: {"adapter": "server", "base_url": up.url, "credentials": {"api_key": "KEY"}},
            {"KEY": KEY},
            {"gpt-4o", "gpt-4o-mini", "o4-mini"},
        ),
        (
            GeminiEmulator,
            lambda up: {"adapter": "gemini", "base_url": up.base_url, "credentials": {"api_key": "KEY"}},
            {"KEY": "AIza-good"},
            set(MODELS) - {"gemini-2.5-flash-image"},
        ),
        (
            BedrockEmulator,
            lambda up: {
                "adapter": "bedrock",
                "base_url": up.url,
                "credentials": {"access_key": "A", "secret_key": "S"},
                "options": {"region": aws.REGION},
            },
            {"A": aws.ACCESS_KEY, "S": aws.SECRET_KEY},
            {NOVA, CLAUDE, OPUS},
        ),
        (
            AzureEmulator,
            lambda up: {"adapter": "azure", "base_url": up.url, "credentials": {"api_key": "KEY"}},
            {"KEY": "azure-good"},
            {"my-chat"},
        ),
        (
            AnthropicEmulator,
            lambda up: {"adapter": "anthropic", "base_url": up.url, "credentials": {"api_key": "KEY"}},
            {"KEY": anthropic_requests.KEY},
            set(anthropic_requests.MODELS),
        ),
    ],
    ids=["openai", "openai-responses", "server", "gemini", "bedrock", "azure", "anthropic"],
)
async def test_each_provider_lists_by_its_own_credentials(
    emulator: Callable[[], Any],
    row: Callable[[Any], Row],
    environment: Mapping[str, str],
    expected: set[str],
    tmp_path: Path,
) -> None:
    """The list is asked for as everything else, page by page, and comes to the catalogue's ids."""
    async with emulator() as upstream:
        upstream.page = 2
        path = tmp_path / "catalogue.yaml"
        write_catalogue(path, [{"id": "p", "makes": "text", **row(upstream)}], [WILD])
        catalogue = load(path, environment)
        targets = OFFER.targets(environment)
        found = await ProviderLists(lambda: catalogue, [targets]).current(KEPT_S)
        await targets.close()
    joined = catalogue.with_listed(found)
    assert {model.id for model in joined.discovered} == expected
    assert not upstream.refused


class Listing:
    """Lists of one provider, over a clock of the test's own."""

    def __init__(self, upstream: OpenAIEmulator, path: Path) -> None:
        self.time = 0.0
        row: Row = {"adapter": "openai", "base_url": upstream.base_url, "credentials": {"api_key": "KEY"}}
        write_catalogue(path, [{"id": "p", "makes": "text", **row}], [WILD, {"id": "known", "provider": "p"}])
        self.path = path
        self.upstream = upstream
        self.catalogue = load(path, {"KEY": KEY})
        self.targets = OFFER.targets({"KEY": KEY})
        self.lists = ProviderLists(lambda: self.catalogue, [self.targets], clock=lambda: self.time)

    async def ids(self, max_age_s: float = KEPT_S) -> list[str] | None:
        """Return the provider's ids; None where no list is known."""
        found = (await self.lists.current(max_age_s)).get("p")
        return None if found is None else list(found.models)


@pytest.fixture
async def listing(tmp_path: Path) -> AsyncIterator[Listing]:
    async with OpenAIEmulator() as upstream:
        made = Listing(upstream, tmp_path / "catalogue.yaml")
        yield made
        await made.targets.close()


async def test_a_list_is_asked_for_once_in_five_minutes(listing: Listing) -> None:
    """However many routers ask: they are told what is kept, anew when it is due, sooner only for who wants it fresh."""
    first = await asyncio.gather(*(listing.ids() for _ in range(5)))
    assert all(ids == ["gpt-4o", "gpt-4o-mini", "o4-mini"] for ids in first)
    listing.upstream.newer.add("gpt-9")
    listing.time = KEPT_S / 2
    assert "gpt-9" not in (await listing.ids() or [])
    assert listing.upstream.lists == 1
    assert "gpt-9" in (await listing.ids(max_age_s=0) or [])
    listing.time += LEAST_S / 2
    await listing.ids(max_age_s=0)
    assert listing.upstream.lists == 2, "what is seconds old is fresh, whoever asks"
    listing.time += KEPT_S
    await listing.ids()
    assert listing.upstream.lists == 3


@pytest.mark.parametrize(
    "answer",
    [(401, b"{}"), (500, b""), (200, b"not json"), (200, b'{"data": ["' + b"x" * 5_000_000 + b'"]}')],
    ids=["refused", "failed", "malformed", "endless"],
)
async def test_a_list_that_cannot_be_had_changes_nothing(listing: Listing, answer: tuple[int, bytes]) -> None:
    """What was listed before stays, the provider is asked again later and later, and no log shows a key."""
    listing.upstream.list_answer = answer
    with capture_logs() as logs:
        assert await listing.ids() is None
        assert await listing.ids() is None
    assert listing.upstream.lists == 1
    assert KEY not in str(logs)
    assert [entry["event"] for entry in logs if entry["event"].startswith("list.")] == ["list.failed"]
    listing.upstream.list_answer = None
    listing.time += 16
    assert await listing.ids() == ["gpt-4o", "gpt-4o-mini", "o4-mini"]
    listing.upstream.list_answer = answer
    listing.time += KEPT_S
    assert await listing.ids() == ["gpt-4o", "gpt-4o-mini", "o4-mini"]


async def test_a_row_that_changed_begins_anew(listing: Listing) -> None:
    """A provider without a wildcard row is not asked, and its list is forgotten; so is that of another address."""
    await listing.ids()
    write_catalogue(listing.path, [], [])
    listing.catalogue = load(listing.path, {})
    assert await listing.ids() is None
    assert listing.upstream.lists == 1


async def test_routers_are_told_what_changed(listing: Listing) -> None:
    """Who has a list's version is told that it is the same, without its models."""
    servicer = ListingServicer(listing.lists)
    first = await servicer.ListProviderModels(pb.ListProviderModelsRequest(), None)
    (told,) = first.providers
    assert [model.id for model in told.models] == ["gpt-4o", "gpt-4o-mini", "o4-mini"]
    same = await servicer.ListProviderModels(pb.ListProviderModelsRequest(known={"p": told.version}), None)
    assert (same.providers[0].unchanged, len(same.providers[0].models)) == (True, 0)
    listing.upstream.newer.add("gpt-9")
    listing.time += KEPT_S
    other = await servicer.ListProviderModels(pb.ListProviderModelsRequest(known={"p": told.version}), None)
    assert "gpt-9" in [model.id for model in other.providers[0].models]


async def test_an_id_that_no_row_has_is_answered(tmp_path: Path) -> None:
    """The service that asks providers takes any id that a wildcard row covers, by the provider's own name."""
    async with OpenAIEmulator() as upstream:
        upstream.newer.add("gpt-9")
        row: Row = {"id": "p", "makes": "text", "adapter": "openai", "base_url": upstream.base_url}
        rows: list[Row] = [{**row, "credentials": {"api_key": "KEY"}}]
        async with text_service(tmp_path, rows, [WILD], {"KEY": KEY}) as service:
            request = chat()
            request.model = "gpt-9"
            assert text_of(await service.ask(request))
        assert upstream.seen[-1].body["model"] == "gpt-9"
