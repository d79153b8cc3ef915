"""What each kind of provider bills for an answer is what is charged for it, and what the report of spending tells, to
the nano-dollar: each by the words in which that provider counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from moa.common.v1 import usage_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.spend import Spend
from services.auth.domain.spend import read
from services.catalogue import Cost, load
from services.quota_client.amounts import Amount
from tests.auth.asking import audited, reserve
from tests.auth.conftest import Admit, Auth
from tests.databases import NOON
from tests.emulators import anthropic, bedrock, gemini, openai, openai_images, openai_responses
from tests.emulators.gemini_images import USAGE as GEMINI_IMAGES
from tests.emulators.script import Counts, Script
from tests.image import subjects as images
from tests.image.harness import image_service, shipped_rows
from tests.text import subjects as texts
from tests.text.harness import chat, text_service

Lines = Mapping[str, int]
"""What a bill has: how many of each kind that has a price."""
PRICES = {"input": 0.1501, "cached": 0.0753, "cache_write": 0.1877, "output": 0.6007, "reasoning": 0.7019}
DRAWN = {"input": 5.0101, "image_input": 8.0003, "output": 10.5007, "image_output": 30.0011}
AN_IMAGE = 0.040000001
COUNTS = Counts(prompt=1013, completion=509, reasoning=211, cached=307, written=101)


def billed(lines: Lines, prices: Mapping[str, float]) -> int:
    """Return a bill in nano-dollars: prices are dollars a million tokens, and what is owed is rounded up once."""
    return math.ceil(sum(count * Fraction(str(prices[kind])) * 1000 for kind, count in lines.items()))


def _openai(counts: Counts) -> Lines:
    told = openai.usage_of(counts)
    cached, reasoning = (
        told["prompt_tokens_details"]["cached_tokens"],
        told["completion_tokens_details"]["reasoning_tokens"],
    )
    said, thought = told["completion_tokens"] - reasoning, reasoning
    return {"input": told["prompt_tokens"] - cached, "cached": cached, "output": said, "reasoning": thought}


def _responses(counts: Counts) -> Lines:
    told = openai_responses.usage_of(counts)
    cached, written = (told["input_tokens_details"][name] for name in ("cached_tokens", "cache_write_tokens"))
    thought = told["output_tokens_details"]["reasoning_tokens"]
    return {
        "input": told["input_tokens"] - cached - written,
        "cached": cached,
        "cache_write": written,
        "output": told["output_tokens"] - thought,
        "reasoning": thought,
    }


def _anthropic(counts: Counts) -> Lines:
    told = anthropic.usage_of(counts)
    thought = told["output_tokens_details"]["thinking_tokens"]
    return {
        "input": told["input_tokens"],
        "cached": told["cache_read_input_tokens"],
        "cache_write": told["cache_creation_input_tokens"],
        "output": told["output_tokens"] - thought,
        "reasoning": thought,
    }


def _bedrock(counts: Counts) -> Lines:
    told = bedrock.usage_of(counts)
    return {
        "input": told["inputTokens"],
        "cached": told["cacheReadInputTokens"],
        "cache_write": told["cacheWriteInputTokens"],
        "output": told["outputTokens"],
    }


def _gemini(counts: Counts) -> Lines:
    told = gemini.usage_of(counts)
    cached = told["cachedContentTokenCount"]
    return {
        "input": told["promptTokenCount"] - cached,
        "cached": cached,
        "output": told["candidatesTokenCount"],
        "reasoning": told["thoughtsTokenCount"],
    }


BILLS: Mapping[str, Callable[[Counts], Lines]] = {
    "openai": _openai,
    "openai-responses": _responses,
    "server": _openai,
    "azure": _openai,
    "gemini": _gemini,
    "bedrock": _bedrock,
    "anthropic": _anthropic,
}


class Answered(NamedTuple):
    """What a service reported of an answer, what that costs by its catalogue, and what its provider bills."""

    usage: usage_pb2.Usage
    cost: Cost
    bill: int


async def text_of(subject: texts.Subject, folder: Path, *, stream: bool) -> Answered:
    """Ask for a text."""
    async with subject.emulator() as upstream:
        upstream.scripts.append(Script(counts=COUNTS))
        rows: list[dict[str, Any]] = [{**row, "prices": PRICES} for row in subject.models()]
        async with text_service(folder, subject.providers(upstream), rows, subject.environment) as client:
            request = chat()
            request.stream = stream
            events = await client.ask(request)
            cost = client.watched.now.find("m", provider="p").cost_on()
    return Answered(events[-1].finished.usage, cost, billed(BILLS[subject.name](COUNTS), PRICES))


async def image_of(subject: images.Subject, folder: Path) -> Answered:
    """Ask for an image."""
    asked = GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="a lamp")
    prices: dict[str, Any] = DRAWN if subject.counts else {"image": AN_IMAGE}
    async with subject.emulator() as upstream:
        providers, models = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream))
        rows = [{**row, "prices": prices} for row in models]
        async with image_service(folder, providers, rows, subject.environment) as client:
            events = await client.ask(asked)
        model = load(folder / "catalogue.yaml", subject.environment).find(subject.model, provider=subject.provider)
    lines = _drawn(subject)
    bill = billed(lines, prices) if lines else math.ceil(Fraction(str(AN_IMAGE)) * 10**9)
    return Answered(events[-1].finished.usage, model.image_cost(asked), bill)


async def test_what_every_provider_bills_is_what_is_reported(auth: Auth, admit: Admit, tmp_path: Path) -> None:
    """Texts, at once and streamed: cached, written to a cache and thought at their own prices. Images: each, or their
    tokens by kind where the provider counts them. Rounded up once a request, and the books balance."""
    assert {subject.name for subject in texts.SUBJECTS} == BILLS.keys()
    answered = {f"{one.name}/whole": await text_of(one, tmp_path, stream=False) for one in texts.SUBJECTS}
    answered |= {f"{one.name}/stream": await text_of(one, tmp_path, stream=True) for one in texts.SUBJECTS}
    answered |= {f"{one.name}/image": await image_of(one, tmp_path) for one in images.SUBJECTS}
    account, _, key = await auth.account(tokens=1_000_000, images=1000)
    admission = await admit(auth)
    need = Amount(tokens=2000, images=1, nano_usd=100_000_000)
    for name, one in answered.items():
        reservation = await reserve(admission, key, need=need, least=need, cost=one.cost)
        provider, _, model = name.partition("/")
        reservation.settle(usage=one.usage, provider=provider, model=model)
    await admission.stop()
    postgres = Postgres(auth.url, size=1, wait_s=20)
    await postgres.open()
    try:
        month = f"{datetime.now(NOON):%Y-%m}"
        told = await Spend(postgres).read(read(["month", "model"], month, month, account_id=account), limit=100)
    finally:
        await postgres.close()
    assert {row.value: row.spent.nano_usd for row in told.rows} == {name: one.bill for name, one in answered.items()}
    assert told.total.spent.nano_usd == sum(one.bill for one in answered.values())
    await audited(auth.url)


def _drawn(subject: images.Subject) -> Lines:
    """Return the bill of a provider that counts tokens of images; nothing of one that counts images."""
    if subject.counts is None:
        return {}
    if subject.name == "gemini":
        (drawn,) = GEMINI_IMAGES["candidatesTokensDetails"]
        text, picture = GEMINI_IMAGES["promptTokensDetails"]
        said = GEMINI_IMAGES["candidatesTokenCount"] - drawn["tokenCount"]
        return {
            "input": text["tokenCount"],
            "image_input": picture["tokenCount"],
            "output": said,
            "image_output": drawn["tokenCount"],
        }
    read_, made = (openai_images.USAGE[name] for name in ("input_tokens_details", "output_tokens_details"))
    return {
        "input": read_["text_tokens"],
        "image_input": read_["image_tokens"],
        "output": made["text_tokens"],
        "image_output": made["image_tokens"],
    }
