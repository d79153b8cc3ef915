"""The charging law (docs/charging.md) over dialects and providers: callers that leave at random points, against what
the providers were asked for and did."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import openai
import psycopg
import pytest

from tests import waiting
from tests.dialects import ANSWERING, PAINTING
from tests.emulators.pictures import ImageScript
from tests.emulators.script import Counts, Script
from tests.laws import tries
from tests.matrix.conftest import CLOUDS, PICTURES, WAIT_S, World

CUTS = tries(28)
"""How many random requests are made."""
PIECES = ("Once ", "upon ", "a ", "time ", "there ", "was.")
"""Each is a token, wherever it is counted."""
COUNTS = Counts(prompt=7, completion=len(PIECES))
BOUND = 200
"""Above the bytes of any prompt here."""


@dataclass
class Cut:
    """One request, where its caller left it, and what its provider did."""

    request_id: str
    what: str
    """For the message of a failure."""
    scripts: list[Script]
    images: int = 0
    """How many images it asks for."""
    whole: bool = False
    """Whether the caller read the answer to its end."""
    status: int = 0
    reached: list[Script] = field(default_factory=list)
    """The scripts that the provider took up: it had the whole request."""


@dataclass(frozen=True)
class Charge:
    """What the ledger holds of a request."""

    tokens: int
    prompt: int
    completion: int
    images: int
    exact: bool


def charges(world: World, cuts: list[Cut]) -> dict[str, Charge]:
    """Read the ledger, by request."""
    with psycopg.connect(world.database_url) as link:
        rows = link.execute(
            "select request_id, sum(tokens)::bigint, sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint,"
            " sum(images)::bigint, bool_and(exact), count(*) from ledger"
            " where kind in ('settle', 'orphan', 'late') and request_id = any(%s) group by request_id",
            ([cut.request_id for cut in cuts],),
        ).fetchall()
    assert all(count == 1 for *_, count in rows), "one request, one charge"
    return {name: Charge(*numbers) for name, *numbers, _ in rows}


async def until(true: Callable[[], bool], why: str) -> None:
    """Wait for what another process does, which nothing announces."""
    end = time.monotonic() + WAIT_S
    for pause_s in waiting.pauses():
        if true():
            return
        assert time.monotonic() < end, why
        await asyncio.sleep(pause_s)


async def play(world: World, session: aiohttp.ClientSession, cut: Cut, path: str, body: Any, cloud: str) -> None:
    """Make a request and leave it where its script holds, or read it to its end."""
    emulator = world.emulators[cloud]
    emulator.scripts.clear()
    emulator.scripts.extend(cut.scripts)
    headers = {"X-API-Key": world.key, "Authorization": f"Bearer {world.key}", "x-request-id": cut.request_id}

    async def ask() -> None:
        async with session.post(world.url + path, json=body, headers=headers) as answer:
            cut.status = answer.status
            await answer.read()

    asking = asyncio.create_task(ask())
    if cut.whole:
        await asking
        assert cut.status == 200, cut.what
    else:
        held = [script for script in cut.scripts if script.hold_at is not None]
        await until(lambda: asking.done() or held[0].held.is_set(), f"{cut.what}: the provider was not asked")
        assert not asking.done(), f"{cut.what}: {cut.status}"
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: held[0].left.is_set(), f"{cut.what}: the provider's call goes on")
    left = list(emulator.scripts)
    cut.reached = [script for script in cut.scripts if script not in left]


def text_cut(dice: random.Random, number: int) -> tuple[Cut, str, Any, str]:
    """Choose a dialect, a provider, a form and a point."""
    rig, cloud, stream = dice.choice(list(ANSWERING.values())), dice.choice(CLOUDS), dice.random() < 0.6
    whole = dice.random() < 0.2
    point = None if whole else (dice.randint(-1, len(PIECES)) if stream else 0)
    script = Script(text=PIECES, counts=COUNTS, hold_at=point)
    asked = rig.text(f"{cloud}-model", "tell me a story", stream=stream, max_tokens=60)
    what = f"{rig.name} {cloud} {'stream' if stream else 'whole'} at {point}"
    return Cut(f"law-{number}-{dice.getrandbits(48):x}", what, [script], 0, whole), asked.path, asked.body, cloud


def image_cut(dice: random.Random, number: int) -> tuple[Cut, str, Any, str]:
    """Likewise, for images; what a provider makes one at a time is asked for in several calls."""
    rig, name = dice.choice(list(PAINTING.values())), dice.choice(PICTURES)
    assert rig.image is not None
    whole = dice.random() < 0.2
    count = rig.most_images
    asked = rig.image(name, "a sea", count)
    scripts: list[Script] = [ImageScript(hold_at=None if whole else 0) for _ in range(count)]
    cut = Cut(f"law-{number}-{dice.getrandbits(48):x}", f"{rig.name} {name}", scripts, count, whole)
    return cut, asked.path, asked.body, name.partition("/")[0]


def check(cut: Cut, charge: Charge) -> None:
    """Compare a charge with what the provider did."""
    if cut.images:
        assert charge.images == cut.images, f"{cut.what}: {charge}"
        return
    [script] = cut.scripts
    assert cut.reached == [script], cut.what
    assert charge.tokens == charge.prompt + charge.completion, f"{cut.what}: {charge}"
    if cut.whole or (script.reported and charge.exact):
        assert (charge.prompt, charge.completion) == (COUNTS.prompt, COUNTS.completion), f"{cut.what}: {charge}"
    else:
        # As reported, as counted, or the bound: never less than the provider had.
        assert COUNTS.prompt <= charge.prompt <= BOUND, f"{cut.what}: {charge}"
        assert charge.completion <= script.delivered, f"{cut.what}: {charge}"


async def makes_apart(world: World, cut: Cut, path: str, body: Any, cloud: str) -> bool:
    """Return whether a request's images are asked for in calls of their own, as one that is read to its end shows."""
    scripts: list[Script] = [ImageScript(hold_at=None) for _ in range(cut.images)]
    whole = Cut(f"{cut.request_id}-whole", cut.what, scripts, cut.images, whole=True)
    async with aiohttp.ClientSession() as session:
        await play(world, session, whole, path, body, cloud)
    return len(whole.reached) == cut.images


@pytest.mark.parametrize("seed", [20261129])
async def test_whoever_leaves_pays_for_what_the_provider_had_begun(world: World, seed: int) -> None:
    """Requests in every dialect to every provider are left at random points, or read to their ends. The ledger holds
    one row for each: the prompt that the provider had, no more of an answer than it delivered, every image that it was
    asked for; of whole answers, what it reported. The sum over the providers is the sum of the ledger."""
    dice = random.Random(seed)  # chooses cases
    chosen = [(image_cut if dice.random() < 0.3 else text_cut)(dice, number) for number in range(CUTS)]
    async with aiohttp.ClientSession() as session:
        for cut, path, body, cloud in chosen:
            await play(world, session, cut, path, body, cloud)
    cuts = [cut for cut, *_ in chosen]
    await until(lambda: len(charges(world, cuts)) == len(cuts), "some requests were never charged")
    booked = charges(world, cuts)
    for cut, path, body, cloud in chosen:
        charge = booked[cut.request_id]
        if not cut.whole and charge.images < cut.images and await makes_apart(world, cut, path, body, cloud):
            # Its caller left before the provider was asked for all of them.
            assert len(cut.reached) <= charge.images, cut.what
            cut.images = charge.images
        check(cut, charge)
    reported = sum(COUNTS.prompt + COUNTS.completion for cut in cuts if cut.whole and not cut.images)
    assert sum(booked[cut.request_id].tokens for cut in cuts if cut.whole and not cut.images) == reported
    assert sum(charge.images for charge in booked.values()) == sum(cut.images for cut in cuts)


def test_openais_client_has_nothing_paid_for_twice(world: World) -> None:
    """A provider that hangs up on a whole answer is asked once, though OpenAI's client tries twice more by itself."""
    emulator = world.emulators["openai"]
    emulator.scripts.extend(Script(text=PIECES, cut_at=0) for _ in range(9))
    with (
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=world.key, max_retries=2, timeout=WAIT_S) as client,
        pytest.raises(openai.APIStatusError) as told,
    ):
        client.chat.completions.create(
            model="openai-model", messages=[{"role": "user", "content": "hi"}], max_tokens=20
        )
    assert told.value.response.headers["x-should-retry"] == "false"
    assert len(emulator.scripts) == 8
