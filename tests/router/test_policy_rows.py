"""The file of policies: what it takes, what it refuses, and a policy in another process."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from moa.policy.v1 import policy_pb2, policy_service_pb2, policy_service_pb2_grpc
from services.common import errors
from services.router.adapters.policy_rows import PoliciesError, PolicyRows
from services.router.domain import policies
from tests.router.rig import ended, said, text
from tests.router.world import World


def file(folder: Path, text: str) -> Path:
    path = folder / "policies.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("policies: [", "policies.yaml"),
        ("policies: {}", "policies"),
        ("{}", "policies"),
        ("policies: [{name: x}]", "a kind or an address"),
        ("policies: [{name: x, kind: deny-list, address: '127.0.0.1:1'}]", "a kind or an address"),
        ("policies: [{name: x, kind: unheard-of}]", "unknown kind 'unheard-of'; there are cap, deny-list"),
        ("policies: [{name: x, kind: cap, dedline_ms: 3}]", "dedline_ms"),
        ("policies: [{name: x, kind: cap, settings: {most: 3}}]", "x: most"),
        ("policies: [{name: x, kind: cap, settings: {languages: [tlh]}}]", "no script is known of language tlh"),
        ("policies: [{name: x, kind: deny-list, settings: {patterns: ['(?=a)']}}]", "look-around"),
        ("policies: [{name: x, kind: deny-list, settings: {patterns: [a, 'b|']}}]", r"'b\\|' matches the empty text"),
        ("policies: [{name: x, kind: cap}, {name: x, kind: cap}]", "two policies are called x"),
        ("policies: [{name: x, kind: cap, deadline_ms: 0}]", "deadline_ms"),
        ("policies: [{name: x, address: 'http://a b', holds: 3}]", "x: "),
    ],
)
def test_a_bad_file_is_refused_with_its_place(given: str, why: str, tmp_path: Path) -> None:
    """A policy that is not understood must not be left out in silence."""
    with pytest.raises(PoliciesError, match=why) as refused:
        PolicyRows(file(tmp_path, given))
    assert "policies.yaml" in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The operator named it."""
    with pytest.raises(PoliciesError):
        PolicyRows(tmp_path / "none.yaml")


async def test_a_package_offers_a_kind_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed beside the gateway is found by its name, and is given the row's settings."""
    (tmp_path / "polite.py").write_text(
        "from services.policies import Hook, Refuse\n"
        "class Polite(Hook):\n"
        "    def __init__(self, settings): self.word = settings['word']\n"
        "    async def before(self, asked, request):\n"
        "        said = request.messages[0].parts[0].text\n"
        "        return None if self.word in said else Refuse(f'say {self.word}')\n"
    )
    info = tmp_path / "polite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[moa.policies]\npolite = polite:Polite\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = PolicyRows(file(tmp_path, "policies: [{name: manners, kind: polite, settings: {word: please}}]"))
    world = World(policies=rows.policies)
    assert (await world.ask("an answer, please"))[0] == "I am a"
    with pytest.raises(errors.ContentPolicy, match="say please"):
        await world.ask("an answer")
    del sys.modules["polite"]


async def test_a_rows_operations_and_order_hold(tmp_path: Path) -> None:
    """A policy for images does not judge texts; of two, the first of the file refuses."""
    rows = PolicyRows(
        file(
            tmp_path,
            """
policies:
  - {name: images, kind: deny-list, operations: [image], settings: {patterns: [cat], message: no cats drawn}}
  - {name: first, kind: deny-list, settings: {patterns: [dog], message: the first}}
  - {name: second, kind: deny-list, settings: {patterns: [dog], message: the second}}
  - {name: answers, kind: deny-list, judges: [answers], settings: {patterns: [bird]}}
""",
        )
    )
    world = World(policies=rows.policies)
    await world.ask("cat")
    await world.ask("bird")
    with pytest.raises(errors.ContentPolicy, match="the first"):
        await world.ask("dog")


class Judge(policy_service_pb2_grpc.PolicyServiceServicer):
    """A process of the operator's: what it does is in the words that it is shown."""

    def __init__(self) -> None:
        self.asked: list[policy_pb2.Asked] = []
        self.ended = asyncio.Event()

    async def Before(self, request: policy_service_pb2.BeforeRequest, context: Any) -> Any:
        self.asked.append(request.asked)
        said = request.request.text.messages[0].parts[0].text
        if said == "hang":
            await asyncio.Event().wait()
        if said == "unset":
            return policy_service_pb2.BeforeResponse()
        if said == "no":
            return policy_service_pb2.BeforeResponse(refuse=policy_pb2.Refuse(reason="not " + "so " * 1000))
        if said == "old":
            request.request.text.messages[0].parts[0].text = "new"
            return policy_service_pb2.BeforeResponse(change=policy_pb2.Change(request=request.request))
        return policy_service_pb2.BeforeResponse(allow=policy_pb2.Allow())

    async def After(self, requests: AsyncIterator[policy_service_pb2.AfterRequest], context: Any) -> Any:
        try:
            async for request in requests:
                self.asked += [request.asked] if request.HasField("asked") else []
                event = request.event
                words = event.text.text.text
                if "halt" in words:
                    yield policy_service_pb2.AfterResponse(stop=policy_pb2.Stop(reason="halt"))
                elif "4711" in words:
                    event.text.text.text = words.replace("4711", "####")
                    yield policy_service_pb2.AfterResponse(replace=policy_pb2.Replace(events=[event]))
                elif "hang" in words:
                    await asyncio.Event().wait()
                else:
                    yield policy_service_pb2.AfterResponse(allow=policy_pb2.Allow())
        finally:
            self.ended.set()


@asynccontextmanager
async def judged(folder: Path, *, deadline_ms: int = 60_000, on_failure: str = "refuse") -> AsyncIterator[Any]:
    """Yield a world whose policy is in another process, that process's servicer, and its server."""
    server, judge = grpc.aio.server(), Judge()
    policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(judge, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    row = f"name: ours, address: '127.0.0.1:{port}', holds: 4, deadline_ms: {deadline_ms}, on_failure: {on_failure}"
    rows = PolicyRows(file(folder, f"policies: [{{{row}}}]"))
    try:
        yield World(policies=rows.policies), judge, server
    finally:
        await rows.aclose()
        await server.stop(None)


async def test_another_process_allows_changes_and_refuses(tmp_path: Path) -> None:
    """By the contract; it is told whose request it is, and of its reason no more is told than is bounded."""
    async with judged(tmp_path) as (world, judge, _):
        await world.ask("old")
        assert world.asked[0].messages == ("new",)
        with pytest.raises(errors.ContentPolicy, match="not so") as refused:
            await world.ask("no")
        assert len(refused.value.message) == 1000
        assert {(asked.request_id, asked.account_id) for asked in judge.asked} == {("rid", "acc")}


async def test_another_process_sees_words_whole_and_stops_answers(tmp_path: Path) -> None:
    """A number that comes in two pieces is hidden; the stream of an answer that was stopped, or left, ends."""
    async with judged(tmp_path) as (world, judge, _):
        world.play("a", text(said("call 47")), text(said("11 now")), text(said(", or halt, or not")), ended())
        got, events, _ = await world.ask()
        assert got == "call #### now"[: len(got)]
        assert "####" in got
        assert events[-2].HasField("candidate_finished")
        async with asyncio.timeout(30):
            await judge.ended.wait()


@pytest.mark.parametrize("prompt", ["hang", "unset"])
async def test_another_process_that_says_nothing_fails_as_the_row_says(prompt: str, tmp_path: Path) -> None:
    """Its time is bounded, whatever it does."""
    async with judged(tmp_path, deadline_ms=200) as (world, _, _):
        with pytest.raises(errors.Unavailable):
            await world.ask(prompt)
    async with judged(tmp_path, deadline_ms=200, on_failure="allow") as (world, _, _):
        assert (await world.ask(prompt))[0] == "I am a"


async def test_another_process_that_is_gone_fails_as_the_row_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed refuses; and what an answer was held back of goes on where it fails open in the middle."""
    async with judged(tmp_path) as (world, _, server):
        await server.stop(None)
        with pytest.raises(errors.Unavailable):
            await world.ask()
    failed = ("moa_policy_verdicts_total", {"policy": "ours", "verdict": "failed"})
    before = REGISTRY.get_sample_value(*failed) or 0
    within = policies.within

    async def briefly(policy: policies.Policy, *given: Any) -> Any:
        return await within(dataclasses.replace(policy, deadline_s=0.05), *given)

    def hurry() -> None:
        """Bound what never comes; what comes has its minute, however busy the machine."""
        monkeypatch.setattr(policies, "within", briefly)

    async with judged(tmp_path, on_failure="allow") as (world, _, _):
        world.play("a", text(said("one two")), hurry, text(said(" hang")), text(said(" three")), ended())
        assert (await world.ask())[0] == "one two hang three"
    assert REGISTRY.get_sample_value(*failed) == before + 1
