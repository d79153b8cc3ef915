"""Policies that tests have judge requests and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from services.policies import Asked, Change, Hook, Replace, Watch, deny_list
from services.router.domain.policies import Policies, Policy
from tests.router.rig import said
from tests.router.world import World


def policy(hook: Hook, *, name: str = "one", fails_open: bool = False, deadline_s: float = 10.0) -> Policy:
    return Policy(
        name=name,
        hook=hook,
        deadline_s=deadline_s,
        fails_open=fails_open,
        operations=frozenset(("text", "image", "embedding")),
        judges_requests=type(hook).before is not Hook.before,
        judges_answers=type(hook).watch is not Hook.watch,
    )


def world(*hooks: Hook, fails_open: bool = False, deadline_s: float = 10.0, **changes: Any) -> World:
    declared = [policy(hook, fails_open=fails_open, deadline_s=deadline_s) for hook in hooks]
    return World(policies=Policies(declared), **changes)


def denying(*patterns: str, **settings: Any) -> Hook:
    return deny_list.made({"patterns": patterns, **settings})


class Adds(Hook):
    """Adds a letter to each prompt and to each piece of an answer."""

    def __init__(self, letter: str) -> None:
        self._letter = letter

    async def before(self, asked: Asked, request: Any) -> Change:
        changed = type(request)()
        changed.CopyFrom(request)
        changed.messages[0].parts[0].text += self._letter
        return Change(changed)

    def watch(self, asked: Asked, request: Any) -> Watch:
        return _Each(lambda event: Replace([said(event.text.text + self._letter)]))


class _Each(Watch):
    def __init__(self, judge: Callable[[Any], Any]) -> None:
        self._judge = judge

    async def after(self, event: Any) -> Any:
        return self._judge(event)


class Watching(Hook):
    """Judges each event by a function."""

    def __init__(self, judge: Callable[[Any], Any], *, holds: int = 0) -> None:
        self.holds = holds
        self._judge = judge

    def watch(self, asked: Asked, request: Any) -> Watch:
        return _Each(self._judge)


class Fails(Hook):
    """Breaks, or never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs

    async def before(self, asked: Asked, request: Any) -> None:
        await self._fail()

    def watch(self, asked: Asked, request: Any) -> Watch:
        return _Failing(self._fail)

    async def _fail(self) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        raise ZeroDivisionError


class _Failing(Watch):
    def __init__(self, fail: Callable[[], Any]) -> None:
        self._fail = fail

    async def after(self, event: Any) -> None:
        await self._fail()


class Answers(Hook):
    """Has one verdict on every request."""

    def __init__(self, verdict: Callable[[Any], Any]) -> None:
        self._verdict = verdict

    async def before(self, asked: Asked, request: Any) -> Any:
        return self._verdict(request)
