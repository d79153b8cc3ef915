"""What administrators do, and that it is written down."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import grpc
import psycopg
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import budget_service_pb2 as budget_pb
from moa.quota.v1 import quota_pb2
from services.auth.adapters import accounts
from services.auth.domain.accounts import DEFAULT_LIMITS
from tests.auth.asking import reserve, settle, until
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth
from tests.databases import NOON, NOON_NAME


async def test_users_cannot_administer(client: Client, auth: Auth) -> None:
    """Every admin method refuses users, and callers without credentials."""
    session = (await client.sign_up("plain@example.com")).session_token
    service = admin_pb.DESCRIPTOR.services_by_name["AdminService"]
    for method in service.methods:
        request = getattr(admin_pb, method.input_type.name)()
        call = getattr(client.admin, method.name)
        assert await code_of(call(request, metadata=client.sent(session))) == grpc.StatusCode.PERMISSION_DENIED
        assert await code_of(call(request, metadata=client.sent())) == grpc.StatusCode.UNAUTHENTICATED


async def test_administrators_look_after_accounts(client: Client, root: str, auth: Auth) -> None:
    """Search, limits within the ceilings, rules, credits and disabling work, and each is in the audit log."""
    admin = client.sent(root)
    made = await client.sign_up("looked.after@example.com")
    account_id = made.account.account_id
    found = await client.admin.ListAccounts(admin_pb.ListAccountsRequest(query="LOOKED.after"), metadata=admin)
    assert [account.account_id for account in found.accounts] == [account_id]
    limits = account_pb2.Limits(tokens_a_day=1_000_000, images_a_day=500, keys=10)
    changed = await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, limits=limits), metadata=admin
    )
    assert changed.account.limits == limits
    for over in (
        account_pb2.Limits(tokens_a_day=1_000_001),
        account_pb2.Limits(images_a_day=501),
        account_pb2.Limits(keys=11),
        account_pb2.Limits(requests_per_minute=0),
        account_pb2.Limits(tokens_per_minute=0),
        account_pb2.Limits(usd_a_month="1.0000000001"),
        account_pb2.Limits(usd_a_month="-1"),
    ):
        too_much = admin_pb.UpdateAccountRequest(account_id=account_id, limits=over)
        assert await code_of(client.admin.UpdateAccount(too_much, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT
    rule = quota_pb2.Rule(provider="openai-text", model="gpt-4*")
    granted = await client.admin.GrantRule(admin_pb.GrantRuleRequest(account_id=account_id, rule=rule), metadata=admin)
    listed = await client.admin.ListRules(admin_pb.ListRulesRequest(account_id=account_id), metadata=admin)
    assert [one.rule.provider for one in listed.rules] == ["local-*", "openai-text"]
    revoke = admin_pb.RevokeRuleRequest(account_id=account_id, rule_id=granted.rule.rule_id)
    await client.admin.RevokeRule(revoke, metadata=admin)
    assert await code_of(client.admin.RevokeRule(revoke, metadata=admin)) == grpc.StatusCode.NOT_FOUND
    for _ in range(2):
        credited = await client.admin.AddCredits(
            admin_pb.AddCreditsRequest(account_id=account_id, micro_credits=5_000_000, reference="paid 1"),
            metadata=admin,
        )
    assert credited.account.granted_micro_credits == 5_000_000
    overdraw = admin_pb.AddCreditsRequest(account_id=account_id, micro_credits=-5_000_001)
    assert await code_of(client.admin.AddCredits(overdraw, metadata=admin)) == grpc.StatusCode.FAILED_PRECONDITION
    await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, disabled=True), metadata=admin
    )
    ended = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(made.session_token))
    assert await code_of(ended) == grpc.StatusCode.UNAUTHENTICATED
    audit = await client.admin.ListAudit(admin_pb.ListAuditRequest(account_id=account_id), metadata=admin)
    assert [entry.act for entry in audit.entries] == [
        "account.disabled",
        "credits.added",
        "rule.revoked",
        "rule.granted",
        "account.changed",
    ]
    assert auth.query("select sum(micro_credits) from credits where account_id = %s", account_id) == [(5_000_000,)]


async def test_lists_are_paged_without_gaps(client: Client, root: str, auth: Auth) -> None:
    """Walking the pages of accounts gives every one once."""
    admin = client.sent(root)
    for _ in range(7):
        await auth.account()
    seen: list[str] = []
    token = ""
    while True:
        page = await client.admin.ListAccounts(
            admin_pb.ListAccountsRequest(page_size=3, page_token=token), metadata=admin
        )
        seen.extend(account.account_id for account in page.accounts)
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == auth.query("select count(*) from accounts where deleted_at is null")[0][0]
    bad = admin_pb.ListAccountsRequest(page_token="?")
    assert await code_of(client.admin.ListAccounts(bad, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_administrator_reads_the_ledger(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """Every settlement of an account is there, newest first, page by page, with who answered; nobody else's is."""
    account, key_id, key = await auth.account()
    other, _, other_key = await auth.account()
    admission = await admit(auth)
    for count in (30, 50, 70):
        settle(await reserve(admission, key, 100), count)
    settle(await reserve(admission, other_key, 100), 11)
    await until(lambda: (auth.spent(account), auth.spent(other)) == ((150, 0), (11, 0)))
    rows: list[account_pb2.LedgerRow] = []
    token = ""
    while token or not rows:
        page = await client.admin.ListLedger(
            admin_pb.ListLedgerRequest(account_id=account, page_size=2, page_token=token), metadata=client.sent(root)
        )
        rows.extend(page.rows)
        token = page.next_page_token
    assert [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
    settled = [(row.tokens, row.key_id, row.provider, row.model) for row in rows if row.kind == "settle"]
    assert sorted(settled) == [(count, key_id, "local-text", "m") for count in (30, 50, 70)]
    assert {row.kind for row in rows} >= {"borrow", "settle"}


async def test_a_new_time_zone_counts_from_the_next_day(client: Client, root: str, auth: Auth) -> None:
    """A change of zone leaves today as it is; the account tells what comes and when, and then that it is there."""
    admin = client.sent(root)
    account_id, _, _ = await auth.account()
    before = await auth.quota_day(account_id)
    told = await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, zone="Asia/Seoul"), metadata=admin
    )
    tomorrow = datetime.combine(before[0] + timedelta(days=1), time(), NOON)
    assert (told.account.zone, told.account.next_zone) == (NOON_NAME, "Asia/Seoul")
    assert told.account.next_zone_at.ToDatetime(UTC) == tomorrow
    assert await auth.quota_day(account_id) == before
    ((details,),) = auth.query(
        "select details from audit where account_id = %s and act = 'account.zone_set'", account_id
    )
    assert details == ["zone=Asia/Seoul", f"from={before[0] + timedelta(days=1)}"]
    auth.query("update accounts set next_zone_day = next_zone_day - 1 where id = %s returning 1", account_id)
    (_, resets_at) = await auth.quota_day(account_id)
    assert resets_at.hour == 15  # midnight in Seoul
    there = await client.admin.GetAccount(admin_pb.GetAccountRequest(account_id=account_id), metadata=admin)
    assert (there.account.zone, there.account.next_zone) == ("Asia/Seoul", "")
    assert not there.account.HasField("next_zone_at")
    limited = budget_pb.CreateBudgetRequest(name="b", owner=account_id, limits=account_pb2.Limits(tokens_a_day=1000))
    budget = (await client.budget.CreateBudget(limited, metadata=admin)).budget
    asked = budget_pb.GetBudgetRequest(budget_id=budget.budget_id)
    (standing,) = (await client.budget.GetBudget(asked, metadata=admin)).standings
    assert standing.resets_at.ToDatetime(UTC) == resets_at
    unknown = admin_pb.UpdateAccountRequest(account_id=account_id, zone="Mars/Base")
    assert await code_of(client.admin.UpdateAccount(unknown, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT


async def test_every_admin_act_is_in_the_audit_log(client: Client, root: str, auth: Auth) -> None:
    """Each method that changes something leaves an entry with who did it; no method of the service is left out."""
    admin = client.sent(root)
    stub = client.admin
    account_id, key_id, _ = await auth.account()
    other, _ = await auth.key(account_id)
    auth.query(
        "insert into identities (id, issuer, subject, account_id) values ('idn_1', 'i', 's', %s) returning 1",
        account_id,
    )
    rule = quota_pb2.Rule(provider="openai-*", model="*")
    granted = await stub.GrantRule(admin_pb.GrantRuleRequest(account_id=account_id, rule=rule), metadata=admin)
    acts = {
        "CreateAccount": ("account.created", admin_pb.CreateAccountRequest(email="made@example.com")),
        "UpdateAccount": ("account.disabled", admin_pb.UpdateAccountRequest(account_id=account_id, disabled=True)),
        "AddCredits": ("credits.added", admin_pb.AddCreditsRequest(account_id=account_id, micro_credits=1)),
        "GrantRule": ("rule.granted", admin_pb.GrantRuleRequest(account_id=account_id, rule=rule)),
        "RevokeRule": (
            "rule.revoked",
            admin_pb.RevokeRuleRequest(account_id=account_id, rule_id=granted.rule.rule_id),
        ),
        "RevokeAccountKey": (
            "key.revoked",
            admin_pb.RevokeAccountKeyRequest(account_id=account_id, key_id=key_id),
        ),
        "UnlinkAccountIdentity": (
            "identity.removed",
            admin_pb.UnlinkAccountIdentityRequest(account_id=account_id, identity_id="idn_1"),
        ),
        "UpdateAccountKey": (
            "key.changed",
            admin_pb.UpdateAccountKeyRequest(account_id=account_id, key_id=key_id, name="renamed"),
        ),
        "CreateInvitation": ("invitation.made", admin_pb.CreateInvitationRequest(expires_in=Duration(seconds=60))),
        "CreateAccountKey": ("key.created", admin_pb.CreateAccountKeyRequest(account_id=account_id)),
        "RotateAccountKey": ("key.rotated", admin_pb.RotateAccountKeyRequest(account_id=account_id, key_id=other)),
        "DeleteAccount": ("account.deleted", admin_pb.DeleteAccountRequest(account_id=account_id)),
    }
    methods = {method.name for method in admin_pb.DESCRIPTOR.services_by_name["AdminService"].methods}
    assert {name for name in methods if not name.startswith(("List", "Get", "Report", "Download"))} == set(acts)
    me = (await client.account.GetMe(pb.GetMeRequest(), metadata=admin)).account.account_id
    for name, (act, request) in acts.items():
        await getattr(stub, name)(request, metadata=admin)
        newest = (await stub.ListAudit(admin_pb.ListAuditRequest(), metadata=admin)).entries[0]
        assert (newest.act, newest.actor) == (act, me), name


async def test_a_grant_says_what_it_grants(client: Client, root: str, auth: Auth) -> None:
    """A grant that lost its rule is refused: an empty one would permit every model."""
    admin = client.sent(root)
    account_id = (await client.sign_up("granted@example.com")).account.account_id
    empty = admin_pb.GrantRuleRequest(account_id=account_id)
    assert await code_of(client.admin.GrantRule(empty, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT
    listed = await client.admin.ListRules(admin_pb.ListRulesRequest(account_id=account_id), metadata=admin)
    assert [one.rule.provider for one in listed.rules] == ["local-*"]


async def test_accounts_are_found_by_any_part_of_what_they_are_called(auth: Auth) -> None:
    """Any part of an id, an email or a name, of whatever length and case, newest first and page by page."""
    names = ["Ada Lovelace", "김모아", "100%_\\ sure", "ada", "x"]
    made = [
        (await auth.accounts.create(role="user", limits=DEFAULT_LIMITS, rules=[], name=name, email=f"p{at}@found.test"))
        for at, name in enumerate(names)
    ]
    for query, expected in {
        "ADA": [3, 0],
        "lovelace": [0],
        "모": [1],
        "%_\\": [2],
        "P4@FOUND": [4],
        "@found.test": [4, 3, 2, 1, 0],
        made[2][4:20]: [2],
        "a\nd": [],
    }.items():
        found: list[str] = []
        after = None
        while page := await auth.accounts.search(query, limit=2, after=after):
            found += [record.id for record in page]
            after = page[-1].created_at, page[-1].id
        assert found == [made[at] for at in expected], query


async def test_a_search_is_served_by_its_index(auth: Auth) -> None:
    """What the search asks for is what the index has; another expression would read every account."""
    statement = f"explain select 1 from accounts where {accounts.PIECES} @> pieces_asked_of('person77')"
    with psycopg.connect(auth.url) as link:
        link.execute("set enable_seqscan = off")
        plan = "\n".join(line for (line,) in link.execute(statement.encode()).fetchall())
    assert "accounts_by_pieces" in plan
