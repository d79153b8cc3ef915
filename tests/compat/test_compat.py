"""One client of each kind, as `make compat` runs all: a package for Python, one for Node, a framework."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from deploy.local.stack import REPOSITORY, Stack
from tests import stacks
from tests.compat import environments, page, runner, table
from tests.compat.client import VENDORS, Client
from tests.compat.clients import CLIENTS
from tests.compat.fakes import Fakes
from tests.compat.plots import LOOP, Conversation, Plot, Stage, Turn, mark, thought
from tests.compat.world import World, world

SUITE = {"openai-python": "tools", "openai-node": "tools-stream", "pydantic-ai": "tools-stream"}


def quick(root: Path, environment: Mapping[str, str], processes: Collection[str]) -> Stack:
    return stacks.gateway(root, environment=environment, processes=set(processes) - {"tasks", "image"})


@pytest.mark.timeout(300)  # a dozen processes, slower where the cores are shared
async def test_loops_of_three_turns_with_reasoning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client hands back what it keeps by itself; no vendor misses a signature, and all tools are called."""
    installed = environments.python
    # The environment of the tests has this one.
    monkeypatch.setattr(
        environments, "python", lambda name: Path(sys.executable) if name == "openai" else installed(name)
    )
    results: list[runner.Result] = []
    async with world(tmp_path / "gateway", quick) as running:
        for client in CLIENTS:
            if client.name in SUITE:
                asked = replace(client, scenarios=dict.fromkeys(VENDORS, (SUITE[client.name],)))
                with (tmp_path / "log").open("wb") as log:
                    results += [each async for each in runner.run(asked, running, log, tmp_path / "home")]
    assert len(results) == len(SUITE) * len(VENDORS)
    assert [each for each in results if each.why] == [], "\n".join(table.lines(results))


def told(*turns: Turn, thinks: bool = True, results: tuple[str, ...] = ()) -> Conversation:
    tools = frozenset({"weather", "now"})
    return Conversation(turns=turns, results=results, tools=tools, forced=None, as_json=False, said="", thinks=thinks)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (told(Turn(LOOP[0].calls, mark(0), thought(0)), results=("21",)), ""),
        (told(Turn(LOOP[0].calls, mark(1), thought(0)), results=("21",)), "its thought was handed back as"),
        (told(Turn(LOOP[0].calls, mark(0), "other"), results=("21",)), "its thought was handed back as"),
        (told(Turn(LOOP[0].calls), thinks=False, results=("21",)), "thinking was turned off"),
        (told(Turn(LOOP[2].calls, mark(0), thought(0)), results=("21",)), "were handed back as"),
        (told(Turn(LOOP[0].calls, mark(0), thought(0))), "no result of a tool says '21'"),
    ],
)
def test_a_stage_sees_what_is_not_handed_back(second: Conversation, problem: str) -> None:
    """A check that cannot fail shows nothing."""
    stage = Stage(Plot(steps=LOOP, marks=("21",)), proves="thoughts")
    stage.answer(told())
    stage.answer(second)
    assert [problem in each for each in stage.problems] == ([True] if problem else [])
    assert stage.missing() == ["the model was told of 1 of 3 turns with calls"]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_every_client_has_its_program_and_its_pinned_version(client: Client) -> None:
    """What the table names is what is installed."""
    assert (runner.PROGRAMS / client.program).is_file()
    assert client.replays or environments.version(client.lock, client.package)[0].isdigit()


ANSWERS = 'import sys\nfor line in sys.stdin: print(\'{"said": "other", "called": []}\', flush=True)'


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(3)", "the program ended with 3"),
        ("import time\ntime.sleep(60)", "no answer within 0.5 s"),
        (ANSWERS, "expected 'It is 21 in Seoul"),
    ],
    ids=["ends", "hangs", "says something else"],
)
async def test_a_program_that_does_not_answer_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    """And each of its scenarios is in the table."""
    monkeypatch.setattr(runner, "command_of", lambda client: [sys.executable, "-c", program])
    monkeypatch.setattr(runner, "ANSWER_S", 0.5 if "sleep" in program else 60)
    alone = cast(World, SimpleNamespace(fakes=Fakes(), url="http://127.0.0.1:9", key="k"))
    asked = replace(CLIENTS[0], scenarios={"openai": ("plain", "stream")})
    with (tmp_path / "log").open("wb") as log:
        results = [each async for each in runner.run(asked, alone, log, tmp_path)]
    assert [each.scenario for each in results] == ["plain", "stream"]
    assert all(why in each.why for each in results), results
    assert "plain:FAILED stream:FAILED" in table.lines(results)[0]


def test_the_page_has_the_clients_of_the_code() -> None:
    """`python -m tests.compat.page` would change nothing in docs/testing.md."""
    text = (REPOSITORY / page.PAGE).read_text()
    assert page.written(text) == text


def test_a_client_that_cannot_be_installed_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, never left out."""
    monkeypatch.setenv("PATH", "")
    client = next(each for each in CLIENTS if each.program.endswith(".mjs"))
    with pytest.raises(environments.Unavailable, match="node and npm are not on this machine"):
        runner.command_of(client)
