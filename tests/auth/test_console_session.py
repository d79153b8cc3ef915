"""The console's session: in a cookie that no script reads, and good for asking models."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from moa.account.v1 import account_service_pb2 as pb
from services.common.errors import Unauthenticated
from tests.auth.asking import refused, reserve, settle
from tests.auth.client import PASSWORD, Client
from tests.auth.conftest import Admit, Auth

PAGE = (("moa-console", "1"),)
TLS = (("x-forwarded-proto", "https"),)


async def cookie_of(call: Any) -> str:
    """Return the cookie that an answer sets, empty for none."""
    await call
    return str(dict(await call.initial_metadata()).get("set-cookie", ""))


async def test_a_page_has_its_session_in_a_cookie(client: Client) -> None:
    """The answer names no token, the cookie no script and no other site reads; logging out takes it away; a client that
    sends no such header has the token as ever."""
    await client.sign_up("cookie@example.com")
    login = pb.LogInRequest(email="cookie@example.com", password=PASSWORD)
    plain = client.account.LogIn(login, metadata=client.sent())
    assert await cookie_of(plain) == ""
    assert (await plain).session_token.startswith("ses-")

    for more, name, end in (((), "moa-session", "Strict"), (TLS, "__Host-moa-session", "Strict; Secure")):
        call = client.account.LogIn(login, metadata=(*client.sent(), *PAGE, *more))
        cookie = await cookie_of(call)
        assert (await call).session_token == ""
        first, _, rest = cookie.partition("; ")
        assert rest == f"Path=/; Max-Age=43200; HttpOnly; SameSite={end}"
        assert first.startswith(f"{name}=ses-")
        token = first.partition("=")[2]
        assert (await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(token))).account.email

        away = await cookie_of(client.account.LogOut(pb.LogOutRequest(), metadata=(*client.sent(token), *PAGE, *more)))
        assert away.startswith(f"{name}=; Path=/; Max-Age=0")
        with pytest.raises(grpc.aio.AioRpcError):
            await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(token))


async def test_who_is_logged_in_asks_models(auth: Auth, client: Client, admit: Admit) -> None:
    """What a session uses counts on its account, on a key that no list shows; ended, it is refused everywhere."""
    made = await client.sign_up("asks@example.com")
    token, account_id = made.session_token, made.account.account_id
    admission = await admit(auth)
    settle(await reserve(admission, token, 100), 40)
    settle(await reserve(admission, token, 100), 2)
    (name, ends), *others = auth.query(
        "select k.name, k.expires_at = s.expires_at from keys k join sessions s using (digest) where k.account_id = %s",
        account_id,
    )
    assert (name, ends, others) == ("console", True, [])
    listed = await client.account.ListKeys(pb.ListKeysRequest(), metadata=client.sent(token))
    assert not listed.keys

    await client.account.LogOut(pb.LogOutRequest(), metadata=client.sent(token))
    await refused(admission, token)
    with pytest.raises(Unauthenticated):
        await reserve(admission, "ses-unknown")


async def test_the_key_of_a_session_lives_as_long(auth: Auth, client: Client, admit: Admit) -> None:
    """A session that is used lives on, and its key with it; such a key takes no place of another one."""
    made = await client.sign_up("lasts@example.com")
    token, account_id = made.session_token, made.account.account_id
    admission = await admit(auth)
    (await reserve(admission, token)).release()
    auth.query(
        "update sessions set expires_at = now() + interval '10 minutes' where account_id = %s returning 1", account_id
    )
    auth.query("update keys set expires_at = now() + interval '1 minute' where account_id = %s returning 1", account_id)
    await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(token))
    ((lives,),) = auth.query(
        "select expires_at > now() + interval '50 minutes' from keys where account_id = %s", account_id
    )
    assert lives
    auth.query("update accounts set key_count = 1 where id = %s returning 1", account_id)
    await client.account.CreateKey(pb.CreateKeyRequest(name="only"), metadata=client.sent(token))
