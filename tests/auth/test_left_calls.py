"""A request that is put to a second target after a call was left: the word of the first's backend, and the ledger."""

from __future__ import annotations

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls
from tests.auth.asking import TOKEN, reserve, settle, until
from tests.auth.conftest import Admit, Auth


async def test_the_word_of_a_backend_that_was_left_is_void(auth: Auth, admit: Admit) -> None:
    """The backend of a silent call wakes up, takes the router for dead and books what it had delivered: nothing comes
    of it, and the answer that another gave meanwhile is charged, once, by its own counts."""
    account, key_id, key = await auth.account()
    admission = await admit(auth)
    first = await reserve(admission, key, 300)
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
        "select kind, tokens, provider from ledger where account_id = %s and kind in ('settle', 'orphan', 'late')"
        " order by id",
        account,
    )
    assert rows == [("settle", 0, ""), ("settle", 120, "local-text")]
