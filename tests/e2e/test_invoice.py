"""The ledger against the provider's own invoice: callers that leave at every point, and a router that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import psycopg
import pytest

from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY, Stack
from tests import stacks
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Counts, Script

PIECES = ("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "cat.")
"""Each is a token: shorter pieces than eight letters are counted as one wherever they are counted."""
POINTS = (-1, *range(len(PIECES) + 1))
"""Before the provider's headers, before each piece, and before its closing words: ten."""
LONG_PIECE = "word " * 800
"""A thousand tokens, as they are estimated."""
COUNTED = 31
"""Tokens of any prompt, as the emulator counts."""
ASK = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "stream": True,
    "max_tokens": 500,
}


class Charge(NamedTuple):
    """A row of the ledger that closes a reservation."""

    kind: str
    tokens: int
    prompt_tokens: int
    completion_tokens: int
    exact: bool


@dataclass(frozen=True)
class Shop:
    """A gateway, and the one provider behind it, which keeps its own invoice."""

    stack: Stack
    upstream: OpenAIEmulator

    def play(self, **how: Any) -> Script:
        """Queue what the provider does next."""
        script = Script(text=PIECES, counts=Counts(prompt=7, completion=len(PIECES)), **how)
        self.upstream.scripts.append(script)
        return script

    def charges(self) -> list[Charge]:
        """Return what the ledger closed, in order."""
        with psycopg.connect(self.stack.database_url) as link:
            rows = link.execute(
                "select kind, tokens, coalesce(prompt_tokens, 0), coalesce(completion_tokens, 0),"
                " coalesce(exact, false) from ledger where kind in ('settle', 'orphan', 'late') order by id"
            ).fetchall()
        return [Charge(*row) for row in rows]

    def audit(self) -> dict[str, Any]:
        """Run the audit that anyone can run; it ends with 0."""
        done = subprocess.run(
            [sys.executable, "-m", "services.auth", "audit", "--json"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": f"gen{os.pathsep}.",
                "MOA_DATABASE_URL": self.stack.database_url,
                "MOA_KEY_PEPPER": "not needed to read it",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    @contextlib.asynccontextmanager
    async def asked(self, body: Any = ASK) -> AsyncIterator[asyncio.Task[aiohttp.ClientResponse]]:
        """Ask for a story; leaving hangs up, wherever it is."""
        async with aiohttp.ClientSession() as session:
            asking = asyncio.create_task(
                session.post(
                    self.stack.url + "/v1/chat/completions",
                    json=body,
                    headers={"Authorization": f"Bearer {self.stack.api_key}"},
                )
            )
            try:
                yield asking
            finally:
                asking.cancel()
                for answer in await asyncio.gather(asking, return_exceptions=True):
                    if isinstance(answer, aiohttp.ClientResponse):
                        answer.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    root: Path = tmp_path_factory.mktemp("invoice")
    port = Ports().any()
    provider = {
        "id": "cloud",
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "credentials": {"api_key": "CLOUD_KEY"},
        "options": {"counts_tokens": True},
        "timeouts": {"connect_s": 60, "first_token_s": 60, "idle_s": 60},
    }
    prices = {"input": 0.15, "output": 0.6}
    model = {"id": "gpt-4o-mini", "provider": "cloud", "context_tokens": 128_000, "prices": prices}
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode({"providers": [provider], "models": [model]}))
    environment = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk-good", "MOA_LEFT_CALL_S": "1", "MOA_LEASE_S": "5"}
    names = ("auth", "text", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as running:
        yield running, port


@pytest.fixture
async def shop(stack: tuple[Stack, int]) -> AsyncIterator[Shop]:
    upstream = OpenAIEmulator()
    await upstream.start(stack[1])
    yield Shop(stack[0], upstream)
    await upstream.stop()


async def until(true: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait for a condition of another process that nothing announces."""
    async with asyncio.timeout(within_s):
        # In a thread: the provider runs in this loop.
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.05)


async def pieces_of(answer: aiohttp.ClientResponse, count: int) -> list[str]:
    """Read so many pieces of a stream."""
    got: list[str] = []
    while len(got) < count:
        line = (await answer.content.readuntil(b"\n\n")).decode().removeprefix("data: ")
        got += [text for choice in json.loads(line)["choices"] if (text := choice["delta"].get("content"))]
    return got


@pytest.mark.parametrize("point", POINTS)
async def test_a_caller_that_leaves_is_charged_what_the_provider_delivered(shop: Shop, point: int) -> None:
    """The rule: of a stream whose caller leaves before the provider has told its counts, the prompt is charged as the
    provider counts it, from the moment that it has the request, and the completion by the pieces that it delivered, one
    token each; both are marked as inexact. One reservation is closed by one row."""
    before = len(shop.charges())
    script = shop.play(hold_at=point)
    async with shop.asked() as asking:
        if point > 0:
            assert await pieces_of(await asking, point) == list(PIECES[:point])
        await asyncio.wait_for(script.held.wait(), 60)
    await asyncio.wait_for(script.left.wait(), 60)
    await until(lambda: len(shop.charges()) > before)
    [charge] = shop.charges()[before:]
    assert not script.reported
    assert script.delivered == max(0, point)
    assert charge.kind == "settle"
    assert charge.completion_tokens == script.delivered
    assert charge.tokens == charge.prompt_tokens + script.delivered
    assert charge.prompt_tokens == COUNTED
    assert not charge.exact


async def test_a_stream_that_is_read_to_its_end_is_charged_what_the_provider_reports(shop: Shop) -> None:
    """Once the provider has told its counts, they are the charge, to the token."""
    before = len(shop.charges())
    script = shop.play()
    async with shop.asked() as asking:
        await (await asking).read()
    await until(lambda: len(shop.charges()) > before)
    assert script.counts is not None
    assert script.reported
    told = script.counts
    assert shop.charges()[before:] == [
        Charge("settle", told.prompt + told.completion, told.prompt, told.completion, True)
    ]


async def test_a_killed_edges_stream_is_charged_for_what_was_delivered(shop: Shop) -> None:
    """kill -9 of the edge mid-stream: its caller sees a broken stream, and the call behind it ends like any other that
    was left."""
    before = len(shop.charges())
    script = shop.play(hold_at=3)
    async with shop.asked() as asking:
        answer = await asking
        assert await pieces_of(answer, 3) == list(PIECES[:3])
        await asyncio.to_thread(shop.stack.kill, "edge")
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    await asyncio.wait_for(script.left.wait(), 60)
    await until(lambda: len(shop.charges()) > before)
    [charge] = shop.charges()[before:]
    assert (charge.kind, charge.completion_tokens, charge.exact) == ("settle", 3, False)
    await asyncio.to_thread(shop.stack.await_ready, "edge")


async def test_a_killed_routers_streams_are_charged_once_for_what_was_delivered(shop: Shop) -> None:
    """kill -9 of the router mid-stream: the service behind it books the pieces by the reservation's id; the router's
    successor, which finds the reservation in the journal, adds nothing, and no backend's word counts twice. Of one
    that nobody bounded and that was lent more twice each reservation pays its part, and none beyond its grant."""
    before = len(shop.charges())
    script = shop.play(hold_at=5)
    async with shop.asked() as asking:
        answer = await asking
        assert await pieces_of(answer, 5) == list(PIECES[:5])
        long = shop.play(hold_at=9)
        long.text = (LONG_PIECE,) * 12
        async with shop.asked({name: value for name, value in ASK.items() if name != "max_tokens"}) as other:
            growing = await other
            assert await pieces_of(growing, 9) == [LONG_PIECE] * 9
            # Two, and two further ones that were made a second ago at least.
            await until(lambda: _open(shop) == 4)
            await asyncio.to_thread(shop.stack.kill, "router")
            for broken in (answer, growing):
                with pytest.raises(aiohttp.ClientError):
                    await broken.read()
    await asyncio.wait_for(script.left.wait(), 60)
    await asyncio.wait_for(long.left.wait(), 60)
    await asyncio.to_thread(shop.stack.await_ready, "router")
    assert script.delivered == 5
    await until(lambda: sum(c.completion_tokens for c in shop.charges()[before:]) == 9005)
    # The gateway goes on, and what the successor still does about the journal changes nothing.
    shop.play()
    async with shop.asked() as asking:
        await (await asking).read()
    await until(lambda: any(c.exact for c in shop.charges()[before:]))
    await until(lambda: not _open(shop))
    lost = [c for c in shop.charges()[before:] if not c.exact]
    assert sorted(c.completion_tokens for c in lost) == [0, 0, 5, 9000]
    assert sum(c.tokens for c in lost) == 2 * COUNTED + 9005
    assert [c.tokens - c.prompt_tokens for c in lost if c.completion_tokens == 5] == [5]
    assert all(c.tokens <= 4096 for c in lost if not c.completion_tokens)
    found = await asyncio.to_thread(shop.audit)
    assert not any(found["faults"].values())


def _open(shop: Shop) -> int:
    """Count the reservations that auth takes for running."""
    with psycopg.connect(shop.stack.database_url) as link:
        row = link.execute("select count(*) from open_reservations").fetchone()
    assert row is not None
    return int(row[0])


async def test_dollars_bound_what_is_bought_and_come_to_the_invoice(shop: Shop) -> None:
    """Over REST: an account buys within its dollars, to the nano-dollar of the invoice; one with less is granted a
    shorter answer; one with too little is 429 and told which limit, whose, until when. One limit changes no other."""
    async with aiohttp.ClientSession(shop.stack.url, headers={"x-api-key": shop.stack.api_key}) as admin:

        async def account(**limits: str) -> tuple[str, str]:
            body = {"with_key": True, "rules": [{}], "limits": limits}
            made = await (await admin.post("/admin/accounts", json=body)).json()
            return made["account"]["account_id"], made["api_key"]

        async def ask(key: str) -> tuple[int, dict[str, Any]]:
            body, headers = {**ASK, "stream": False, "user": "ann"}, {"x-api-key": key, "moa-tags": "shop, =1+1"}
            answer = await admin.post("/v1/chat/completions", json=body, headers=headers)
            return answer.status, await answer.json()

        buyer, key = await account(usd_a_month="0.01")
        shop.play()
        assert (await ask(key))[0] == 200
        invoice = 7 * 150 + len(PIECES) * 600
        while not (told := await _used(admin, key))["usd_a_month"][1].strip("0."):
            await asyncio.sleep(0.05)
        spent = f"0.{invoice:09}".rstrip("0")
        assert told["usd_a_month"] == ("0.01", spent)
        await _reported(admin, buyer, key, spent)
        _, key = await account(usd_in_total="0.0001")
        shop.play()
        assert (await ask(key))[0] == 200
        most = shop.upstream.seen[-1].body["max_tokens"]
        assert 100 < most < 100_000 // 600
        _, key = await account(usd_a_month="0.000001")
        status, refused = await ask(key)
        assert (status, refused["error"]["code"]) == (429, "insufficient_quota")
        assert refused["error"]["message"].startswith(
            "the account's limit of $0.000001 a month is less than this request may come to, $0."
        )
        changes = {"limits": {"requests_per_minute": 60, "images_a_month": 9}}
        await admin.patch(f"/admin/accounts/{buyer}", json=changes)
        changed = await admin.patch(f"/admin/accounts/{buyer}", json={"limits": {"images_a_month": None}})
        limits = (await changed.json())["account"]["limits"]
        assert limits == {
            "tokens_a_day": 100_000,
            "images_a_day": 50,
            "keys": 1,
            "requests_per_minute": 60,
            "usd_a_month": "0.01",
        }
    assert not shop.audit()["faults"]


async def _reported(admin: aiohttp.ClientSession, account: str, key: str, spent: str) -> None:
    """Hold the reports of an account's spending to what it was charged: as JSON, to itself and to administrators, and
    as a file."""
    for path, groups in (
        ("/account/spend?by=month,tag", {"=1+1", "shop", "user:ann"}),
        ("/account/spend?by=day&by=model", {"cloud/gpt-4o-mini"}),
        (f"/admin/spend?by=dialect&account_id={account}", {"openai"}),
    ):
        own = {"x-api-key": key} if path.startswith("/account") else {}
        report = await (await admin.get(path, headers=own)).json()
        assert {(row["group"], row["usd"]) for row in report["rows"]} == {(group, spent) for group in groups}
        assert report["total"]["usd"] == spent
    file = await admin.get("/account/spend.csv?by=month,tag", headers={"x-api-key": key})
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert [line.split(",")[1:4] for line in (await file.text()).splitlines()[1:]] == [
        ["'=1+1", "", spent],
        ["shop", "", spent],
        ["user:ann", "", spent],
    ]
    refused = await admin.get("/admin/spend.csv?by=week")
    assert (refused.status, "'week' is none of day, month" in await refused.text()) == (422, True)


async def test_the_examples_of_administration_run(shop: Shop, tmp_path: Path) -> None:
    """The blocks of docs/administration.md, one after another as a reader runs them: no call of them is refused."""
    (tmp_path / ".curlrc").write_text("fail-with-body\nshow-error\n")
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs" / "administration.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    process = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-o", "pipefail", "-c", "\n".join(blocks)),
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "CURL_HOME": str(tmp_path),
            "MOA_URL": shop.stack.url,
            "MOA_ADMIN_KEY": shop.stack.api_key,
            "PROVIDER": "cloud",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def _used(session: aiohttp.ClientSession, key: str) -> dict[str, tuple[str, str]]:
    told = await (await session.get("/account/limits", headers={"x-api-key": key})).json()
    return {one["limit"]: (one["most"], one["used"]) for one in told["standings"]}
