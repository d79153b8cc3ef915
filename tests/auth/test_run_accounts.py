"""Accounts that an administrator runs: for whoever cannot, and after whoever is gone."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import budget_service_pb2 as budget_pb
from moa.account.v1 import team_service_pb2 as team_pb
from moa.quota.v1 import quota_pb2
from services.auth.adapters.offered import Offered
from services.common.errors import Conflict, NotFound, PermissionDenied
from services.quota_client.labels import labelled
from tests.auth.asking import reserve, settle, until
from tests.auth.client import PASSWORD, Client, code_of
from tests.auth.conftest import Admit, Auth


async def change(client: Client, root: str, account_id: str, **fields: Any) -> account_pb2.Account:
    request = admin_pb.UpdateAccountRequest(account_id=account_id, **fields)
    return (await client.admin.UpdateAccount(request, metadata=client.sent(root))).account


async def told_at_last(client: Client, token: str) -> grpc.StatusCode:
    """Return what a credential is refused with, once every replica has heard that it is."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(token))
            except grpc.aio.AioRpcError as refused:
                return refused.code()
            await asyncio.sleep(0.05)


async def test_a_password_and_an_address_are_set_for_others(client: Client, root: str, auth: Auth) -> None:
    """The new ones log in and the old ones do not, sessions have ended, and the audit log names neither."""
    made = await client.sign_up("before@example.com", name="Ann Before")
    account_id = made.account.account_id
    await change(client, root, account_id, email="After@example.com", name="Ann After", password="another password")
    gone = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(made.session_token))
    assert await code_of(gone) == grpc.StatusCode.UNAUTHENTICATED
    for email, password in (("before@example.com", "another password"), ("after@example.com", PASSWORD)):
        wrong = client.account.LogIn(pb.LogInRequest(email=email, password=password), metadata=client.sent())
        assert await code_of(wrong) == grpc.StatusCode.UNAUTHENTICATED
    right = pb.LogInRequest(email="after@example.com", password="another password")
    session = await client.account.LogIn(right, metadata=client.sent())
    assert session.account.name == "Ann After"
    audit = await client.admin.ListAudit(admin_pb.ListAuditRequest(account_id=account_id), metadata=client.sent(root))
    (changed,) = (entry for entry in audit.entries if entry.act == "account.changed")
    assert sorted(changed.details) == ["a new email", "a new name", "a new password"]
    await client.sign_up("third@example.com")
    taken = admin_pb.UpdateAccountRequest(account_id=account_id, email="third@example.com")
    assert await code_of(client.admin.UpdateAccount(taken, metadata=client.sent(root))) == grpc.StatusCode.ABORTED
    await change(client, root, account_id, email="", password="")
    assert auth.query("select email, password_hash from accounts where id = %s", account_id) == [(None, None)]


async def test_nobody_takes_their_own_administration_away(client: Client, root: str) -> None:
    """Whoever did so last would leave nobody to undo it; what is asked beside it is not done either."""
    me = (await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(root))).account
    for what in ({"role": account_pb2.ROLE_USER}, {"role": account_pb2.ROLE_SERVICE}, {"disabled": True}):
        request = admin_pb.UpdateAccountRequest(account_id=me.account_id, name="Changed", **what)
        refused = client.admin.UpdateAccount(request, metadata=client.sent(root))
        assert await code_of(refused) == grpc.StatusCode.INVALID_ARGUMENT
    assert (await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(root))).account == me


async def test_a_refused_change_of_an_account_changes_nothing(client: Client, root: str) -> None:
    """An unknown zone, and a second factor that nobody sets for another, are refused before the name is changed."""
    account = (await client.sign_up("refused.change@example.com", name="Ann")).account
    for what in ({"zone": "Mars/Olympus"}, {"second_factor": True}):
        request = admin_pb.UpdateAccountRequest(account_id=account.account_id, name="Changed", **what)
        refused = client.admin.UpdateAccount(request, metadata=client.sent(root))
        assert await code_of(refused) == grpc.StatusCode.INVALID_ARGUMENT
    shown = admin_pb.GetAccountRequest(account_id=account.account_id)
    assert (await client.admin.GetAccount(shown, metadata=client.sent(root))).account.name == "Ann"


async def test_a_change_of_limits_leaves_the_others(client: Client, root: str) -> None:
    """One limit that is given changes one."""
    account_id = (await client.sign_up("merged@example.com")).account.account_id
    await change(client, root, account_id, limits=account_pb2.Limits(tokens_a_day=500, usd_a_month="2.50"))
    changed = await change(client, root, account_id, limits=account_pb2.Limits(requests_per_minute=2))
    wanted = account_pb2.Limits(tokens_a_day=500, images_a_day=50, keys=1, usd_a_month="2.50", requests_per_minute=2)
    assert changed.limits == wanted
    assert not (await change(client, root, account_id, no_limit=["usd_a_month"])).limits.HasField("usd_a_month")


async def test_a_disabled_accounts_keys_are_told_so(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """They end within 2 s with a refusal that says why and what to do, and work again when it is enabled."""
    account_id, _, key = await auth.account()
    admission = await admit(auth)
    (await reserve(admission, key, 10)).release()
    await change(client, root, account_id, disabled=True)

    async def until_refused() -> None:
        while True:
            (await reserve(admission, key, 10)).release()
            await asyncio.sleep(0.05)

    async with asyncio.timeout(60):
        with pytest.raises(PermissionDenied, match="the account of this API key is disabled; ask an administrator"):
            await until_refused()
    assert await told_at_last(client, key) == grpc.StatusCode.PERMISSION_DENIED
    await change(client, root, account_id, disabled=False)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(PermissionDenied):
                (await reserve(admission, key, 10)).release()
                break
            await asyncio.sleep(0.05)


async def test_keys_are_made_and_rotated_for_others(client: Client, root: str, auth: Auth) -> None:
    """With limits of their own; both keys work for the overlap, on the counters of the first, and then the new one."""
    account_id, _, _ = await auth.account()
    admin = client.sent(root)
    asked = admin_pb.CreateAccountKeyRequest(
        account_id=account_id,
        name="ci",
        expires_in=Duration(seconds=86_400),
        limits=account_pb2.Limits(usd_a_month="5"),
        priority=quota_pb2.PRIORITY_LOW,
    )
    made = await client.admin.CreateAccountKey(asked, metadata=admin)
    assert (made.key.name, made.key.limits.usd_a_month) == ("ci", "5.00")
    request = admin_pb.RotateAccountKeyRequest(
        account_id=account_id, key_id=made.key.key_id, overlap=Duration(seconds=3600)
    )
    new = await client.admin.RotateAccountKey(request, metadata=admin)
    listed = await client.admin.ListAccountKeys(admin_pb.ListAccountKeysRequest(account_id=account_id), metadata=admin)
    old = next(key for key in listed.keys if key.key_id == made.key.key_id)
    ends = old.expires_at.ToDatetime(tzinfo=UTC)
    assert timedelta(minutes=55) < ends - datetime.now(UTC) <= timedelta(hours=1)
    assert new.key.limits == made.key.limits
    assert new.key.expires_at == made.key.expires_at
    for secret in (made.api_key, new.api_key):
        me = await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(secret))
        assert me.account.account_id == account_id
    assert auth.query("select distinct coalesce(counts_as, id) from keys where name = 'ci'") == [(made.key.key_id,)]
    at_once = admin_pb.RotateAccountKeyRequest(account_id=account_id, key_id=new.key.key_id)
    await client.admin.RotateAccountKey(at_once, metadata=admin)
    assert await told_at_last(client, new.api_key) == grpc.StatusCode.UNAUTHENTICATED
    too_long = admin_pb.RotateAccountKeyRequest(
        account_id=account_id, key_id=made.key.key_id, overlap=Duration(seconds=31 * 86_400)
    )
    assert await code_of(client.admin.RotateAccountKey(too_long, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT


def traces(auth: Auth, *words: str) -> list[tuple[str, str]]:
    """Return where a word of a person's is still kept: table and row."""
    tables = [
        name
        for (name,) in auth.query(
            "select table_name from information_schema.tables"
            " where table_schema = 'public' and table_type = 'BASE TABLE'"
        )
    ]
    found = []
    with psycopg.connect(auth.url) as link:
        for table in tables:
            for (row,) in link.execute(f"select to_jsonb(t)::text from {table} t".encode()):
                found += [(table, row) for word in words if word in row]
    return found


async def test_of_a_deleted_account_nothing_of_a_person_is_left(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """No table has its address, names, or users; keys and sessions end; the ledger has what it had, and it balances."""
    made = await client.sign_up("gone.for.good@example.com", name="Greta Gone")
    account_id = made.account.account_id
    session = client.sent(made.session_token)
    key = await client.account.CreateKey(pb.CreateKeyRequest(name="Greta's laptop"), metadata=session)
    # As the release before wrote it.
    auth.query(
        "insert into audit (actor, act, account_id, details) values ('console', 'account.created', %s, %s) returning 1",
        account_id,
        ["role=user", "email=gone.for.good@example.com"],
    )
    admission = await admit(auth)
    reservation = await reserve(admission, key.api_key, 100)
    reservation.labels = labelled("openai", ["batch"]).of_user("greta-1")
    settle(reservation, 40)
    await until(lambda: auth.spent(account_id) == (40, 0))
    running = await reserve(admission, key.api_key, 100)
    running.labels = reservation.labels
    assert traces(auth, "gone.for.good", "Greta", "greta-1")
    admin = client.sent(root)
    for _ in range(2):
        left = await client.admin.DeleteAccount(admin_pb.DeleteAccountRequest(account_id=account_id), metadata=admin)
        assert left.account.deleted_at.seconds
    settle(running, 7)
    await until(lambda: auth.spent(account_id) == (47, 0))
    assert traces(auth, "gone.for.good", "Greta", "greta-1") == []
    tags = auth.query("select tags from ledger where account_id = %s and tags is not null", account_id)
    assert tags == [(["batch"],), (["batch"],)]
    for token in (made.session_token, key.api_key):
        assert await told_at_last(client, token) == grpc.StatusCode.UNAUTHENTICATED
    found = await client.admin.ListAccounts(admin_pb.ListAccountsRequest(query=account_id), metadata=admin)
    assert list(found.accounts) == []
    ledger = await client.admin.ListLedger(admin_pb.ListLedgerRequest(account_id=account_id), metadata=admin)
    assert [row.tokens for row in ledger.rows if row.kind == "settle"] == [7, 40]
    for request in (
        admin_pb.UpdateAccountRequest(account_id=account_id, disabled=False),
        admin_pb.CreateAccountKeyRequest(account_id=account_id),
        admin_pb.GrantRuleRequest(account_id=account_id, rule=quota_pb2.Rule()),
    ):
        method = type(request).__name__.removesuffix("Request")
        assert await code_of(getattr(client.admin, method)(request, metadata=admin)) == grpc.StatusCode.NOT_FOUND
    again = await client.sign_up("gone.for.good@example.com")
    assert again.account.account_id != account_id
    me = (await client.account.GetMe(pb.GetMeRequest(), metadata=admin)).account.account_id
    own = client.admin.DeleteAccount(admin_pb.DeleteAccountRequest(account_id=me), metadata=admin)
    assert await code_of(own) == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_kept_for_ever_forgets_people_alone(auth: Auth, admit: Admit) -> None:
    """The ledger and the audit log take no other change, of whomever."""
    account_id, _, key = await auth.account()
    admission = await admit(auth)
    reservation = await reserve(admission, key, 100)
    reservation.labels = labelled("openai", ["batch"])
    settle(reservation, 40)
    await until(lambda: auth.spent(account_id) == (40, 0))
    auth.query("insert into audit (actor, act, account_id) values ('console', 'x', %s) returning 1", account_id)

    def refused(statement: str) -> bool:
        try:
            auth.query(f"{statement} where account_id = %s returning 1", account_id)
        except psycopg.errors.RaiseException:
            return True
        return False

    assert refused("update ledger set tags = null")
    assert refused("update audit set details = '{}', actor = 'x'")
    await auth.accounts.delete(account_id, actor="console")
    assert refused("update ledger set tokens = 0")
    assert refused("update ledger set tags = '{other}'")
    assert refused("update audit set actor = 'x'")
    assert refused("update audit set details = '{other}'")
    assert refused("delete from audit")
    assert not refused("update ledger set tags = null")


CATALOGUE = """
providers:
  - {id: one, adapter: openai, base_url: "http://127.0.0.1:1/v1", makes: text}
  - {id: two, adapter: openai, base_url: "http://127.0.0.1:1/v1", makes: text}
  - {id: three, adapter: openai, base_url: "http://127.0.0.1:1/v1", makes: image}
models:
  - {id: small, provider: one}
  - {id: "*", provider: two}
  - {id: "*", provider: three}
routes:
  - {id: team, targets: [{model: one/small}]}
"""


async def test_rules_that_match_nothing_are_told(tmp_path: Path) -> None:
    """Of providers whose models are listed by themselves anything may be there."""
    path = tmp_path / "catalogue.yaml"
    path.write_text(CATALOGUE)
    image, text = quota_pb2.OPERATION_IMAGE, quota_pb2.OPERATION_TEXT
    warnings: dict[tuple[Any, ...], str] = {
        ("one", "small"): "",
        ("one", "small", text): "",
        ("one", "small", image, text): "",
        ("one", "*", quota_pb2.OPERATION_TASK): "",
        ("three", "*", image): "",
        ("t*", "whatever", image): "",
        ("one", "*", image): "no model of 'one' called '*' in the catalogue is asked for image, so it permits nothing",
        ("two", "x", image): "no model of 'two' called 'x' in the catalogue is asked for image, so it permits nothing",
        ("o*", "sm*"): "",
        ("", ""): "",
        ("virtual-*", "team"): "",
        ("two", "whatever"): "",
        ("*", "whatever"): "",
        ("one", "smal"): "no model of 'one' in the catalogue is called 'smal', so it permits nothing",
        ("onne", "*"): "no provider of the catalogue is called 'onne', so it permits nothing",
    }
    rules = [quota_pb2.Rule(provider=provider, model=model, operations=asked) for provider, model, *asked in warnings]
    assert await Offered(path).warnings(rules) == list(warnings.values())


async def test_a_catalogue_that_cannot_be_read_warns_of_nothing(tmp_path: Path) -> None:
    """And when it can be read it does."""
    path = tmp_path / "catalogue.yaml"
    offered, rule = Offered(path), quota_pb2.Rule(provider="onne")
    assert await offered.warnings([rule]) == [""]
    path.write_text(CATALOGUE)
    assert await offered.warnings([rule]) != [""]


async def test_a_fault_in_the_catalogue_keeps_no_key_from_being_set(tmp_path: Path) -> None:
    """Of a provider that was there before; of another nobody knows, and it is said what to do."""
    path = tmp_path / "catalogue.yaml"
    offered = Offered(path)
    with pytest.raises(Conflict, match="mend it"):
        await offered.forms("one")
    path.write_text(CATALOGUE)
    forms = await offered.forms("one")
    with pytest.raises(NotFound, match="GET /admin/providers"):
        await offered.forms("onne")
    path.write_text("providers: [")
    assert await offered.forms("one") == forms
    with pytest.raises(Conflict):
        await offered.forms("onne")


async def test_a_grant_that_permits_nothing_says_so(client: Client, root: str, auth: Auth) -> None:
    """In its answer and in the list; it is kept, for the model may come."""
    account_id, _, _ = await auth.account()
    admin = client.sent(root)
    rule = quota_pb2.Rule(provider="opanai-text")
    granted = await client.admin.GrantRule(admin_pb.GrantRuleRequest(account_id=account_id, rule=rule), metadata=admin)
    listed = await client.admin.ListRules(admin_pb.ListRulesRequest(account_id=account_id), metadata=admin)
    assert "'opanai-text'" in granted.rule.warning
    assert [one.warning for one in listed.rules] == ["", granted.rule.warning]
    made = await client.admin.CreateAccount(
        admin_pb.CreateAccountRequest(rules=[quota_pb2.Rule(provider="local-*"), rule]), metadata=admin
    )
    assert list(made.warnings) == [f"rules[1]: {granted.rule.warning}"]


async def test_a_team_and_a_budget_that_match_nothing_say_so(client: Client, root: str) -> None:
    """Of a team each rule by its place, of a budget why it counts nothing: when they are made, changed and read."""
    admin, bad, good = client.sent(root), quota_pb2.Rule(provider="opanai-text"), quota_pb2.Rule(provider="local-*")
    told = "no provider of the catalogue is called 'opanai-text', so it permits nothing"
    made = await client.team.CreateTeam(team_pb.CreateTeamRequest(name="odd", rules=[good, bad]), metadata=admin)
    shown = team_pb.GetTeamRequest(team_id=made.team.team_id)
    change = team_pb.UpdateTeamRequest(team_id=made.team.team_id, rules=team_pb.Rules(rules=[bad]))
    assert list(made.team.rule_warnings) == [f"rules[1]: {told}"]
    assert list((await client.team.UpdateTeam(change, metadata=admin)).team.rule_warnings) == [f"rules[0]: {told}"]
    assert list((await client.team.GetTeam(shown, metadata=admin)).team.rule_warnings) == [f"rules[0]: {told}"]
    limits = account_pb2.Limits(tokens_a_day=10)
    odd = budget_pb.CreateBudgetRequest(owner=made.team.team_id, provider="opanai-text", limits=limits)
    even = budget_pb.CreateBudgetRequest(owner=made.team.team_id, provider="local-*", limits=limits)
    budget = (await client.budget.CreateBudget(odd, metadata=admin)).budget
    await client.budget.CreateBudget(even, metadata=admin)
    told = told.replace("permits", "counts")
    listed = budget_pb.ListBudgetsRequest(owner=made.team.team_id)
    found = (await client.budget.ListBudgets(listed, metadata=admin)).budgets
    read = await client.budget.GetBudget(budget_pb.GetBudgetRequest(budget_id=budget.budget_id), metadata=admin)
    assert (budget.warning, read.budget.warning, [one.warning for one in found]) == (told, told, ["", told])
