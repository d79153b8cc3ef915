"""A request that is put to a second target after a call was left: the word of the first's backend, and the ledger."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Model
from services.common.rpc import call as calls
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls
from services.quota_client.labels import labelled
from tests.auth.asking import TOKEN, reserve, settle, until
from tests.auth.conftest import Admit, Auth


async def test_the_word_of_a_backend_that_was_left_is_void(auth: Auth, admit: Admit) -> None:
    """The backend of a silent call wakes up, takes the router for dead and books what it had delivered: nothing comes
    of it, and the answer that another gave meanwhile is charged, once, by its own counts."""
    account, key_id, key = await auth.account()
    admission = await admit(auth)
    first = await reserve(admission, key, 300)
    first.labels = labelled("openai", ["b, c", "a"])
    second = first.renewed()
    assert (second.tokens, second.key_id) == (300, key_id)
    await until(lambda: auth.query("select tokens from ledger where reference = %s", first.reservation_id) == [(0,)])
    async with channel(auth.address) as link:
        backend = AbandonedCalls(link, service_token=TOKEN, after_s=0)
        await backend.start()
        backend.left(
            first.reservation_id,
            usage=usage_pb2.Usage(prompt_tokens=100, completion_tokens=50),
            operation=quota_pb2.OPERATION_TEXT,
            provider="silent",
            model="m",
            request_id="r",
        )
        await backend.stop()
    settle(second, 120)
    await until(lambda: auth.spent(account) == (120, 0))
    rows = auth.query(
        "select kind, tokens, provider, dialect, tags from ledger"
        " where account_id = %s and kind in ('settle', 'orphan', 'late')"
        " order by id",
        account,
    )
    labels = "openai", ["a", "b, c"]
    assert rows == [("settle", 0, "", *labels), ("settle", 120, "local-text", *labels)]


async def test_a_prompt_that_is_still_counted_is_waited_for(auth: Auth, admit: Admit) -> None:
    """What is due while the provider counts is booked by the count, not by the bound, and once."""
    account, _, key = await auth.account()
    reservation = await reserve(await admit(auth), key, 300)
    told = {calls.RESERVATION_KEY: reservation.reservation_id, calls.PROMPT_KEY: "90"}
    asked, gate = asyncio.Event(), asyncio.Event()

    async def count() -> int:
        asked.set()
        await gate.wait()
        return 31

    async with channel(auth.address) as link:
        backend = AbandonedCalls(link, service_token=TOKEN, after_s=0)
        await backend.start()
        backend.report(
            Mock(invocation_metadata=lambda: tuple(told.items())),
            usage=usage_pb2.Usage(completion_tokens=5),
            operation=quota_pb2.OPERATION_TEXT,
            model=Model(id="m", provider="p"),
            count=count,
        )
        await asked.wait()
        await asyncio.sleep(0)  # it is due
        gate.set()
        await until(lambda: auth.spent(account) == (36, 0))
        await backend.stop()
    rows = "select kind, tokens, prompt_tokens from ledger where account_id = %s and kind in ('settle', 'late')"
    assert auth.query(rows, account) == [("settle", 36, 31)]


async def test_a_backends_word_says_what_the_request_is_called(auth: Auth, admit: Admit) -> None:
    """It books the dialect and the tags that the call's metadata told it."""
    account, _, key = await auth.account()
    reservation = await reserve(await admit(auth), key, 300)
    labels = labelled("google", ["ünï"])
    told = {calls.RESERVATION_KEY: reservation.reservation_id, calls.LABELS_KEY: labels.header()}
    async with channel(auth.address) as link:
        backend = AbandonedCalls(link, service_token=TOKEN, after_s=0)
        await backend.start()
        backend.report(
            Mock(invocation_metadata=lambda: tuple(told.items())),
            usage=usage_pb2.Usage(prompt_tokens=100, completion_tokens=50),
            operation=quota_pb2.OPERATION_TEXT,
            model=Model(id="m", provider="p"),
        )
        await backend.stop()
    await until(lambda: auth.spent(account) == (150, 0))
    assert auth.query(
        "select dialect, tags from ledger where reference = %s and kind = 'settle'", reservation.reservation_id
    ) == [("google", ["ünï"])]
