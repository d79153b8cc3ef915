"""What the groups of a person give its account: teams and roles, from log-in to log-in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.auth.adapters.group_rules import GroupRules, GroupRulesError, read
from services.auth.adapters.memberships import follow_groups
from services.auth.adapters.teams import Teams
from services.auth.domain.oidc import GroupRule
from tests.auth.conftest import Auth

_NAMES = itertools.count()


async def team_of(auth: Auth) -> str:
    made = await Teams(auth.postgres).create(
        name=f"team {next(_NAMES)}", columns={}, rules=[], key_count=1, actor="console"
    )
    return made.id


async def follow(auth: Auth, account_id: str, *rules: GroupRule) -> tuple[str | None, str | None, str]:
    """Log an account in whose groups have those rules; return its team, its role there and its own."""
    async with auth.postgres.transaction() as link:
        await follow_groups(link, account_id, rules)
    record = await auth.accounts.get(account_id)
    return record.team_id, record.team_role, record.role


def acts(auth: Auth, account_id: str) -> list[tuple[str, Sequence[str]]]:
    """Return what groups did to an account, by the audit log."""
    rows = auth.query("select act, details from audit where account_id = %s order by id", account_id)
    return [(act, details) for act, details in rows if "by=groups" in details]


async def test_a_group_gives_a_team_and_takes_it_away(auth: Auth) -> None:
    """Role by role, team by team, each in the audit log; the first rule whose team there is counts."""
    one, two = await team_of(auth), await team_of(auth)
    keeper, _, _ = await auth.account()
    await Teams(auth.postgres).put(one, keeper, "owner", actor="console")
    account_id, _, _ = await auth.account()
    gone = GroupRule("x", "team_0")
    assert await follow(auth, account_id, gone, GroupRule("a", one), GroupRule("b", two)) == (one, "member", "user")
    assert await follow(auth, account_id, GroupRule("a", one, "owner")) == (one, "owner", "user")
    assert await follow(auth, account_id, GroupRule("a", one, "owner")) == (one, "owner", "user")
    assert await follow(auth, account_id, GroupRule("a", one)) == (one, "member", "user")
    assert await follow(auth, account_id, GroupRule("b", two)) == (two, "member", "user")
    assert await follow(auth, account_id) == (None, None, "user")
    assert [act for act, _ in acts(auth, account_id)] == [
        "team.joined",
        "team.member_changed",
        "team.member_changed",
        "team.member_removed",
        "team.joined",
        "team.member_removed",
    ]


async def test_what_was_given_by_hand_stays(auth: Auth) -> None:
    """A team that an administrator or an invitation put somebody into, and a role that was changed there."""
    teams = Teams(auth.postgres)
    one, two = await team_of(auth), await team_of(auth)
    by_hand, _, _ = await auth.account()
    await teams.put(one, by_hand, "member", actor="console")
    for rules in ((), (GroupRule("b", two),), (GroupRule("a", one, "owner"),), (GroupRule("a", one),), ()):
        assert await follow(auth, by_hand, *rules) == (one, "member", "user")
    assert not acts(auth, by_hand)
    changed, _, _ = await auth.account()
    await follow(auth, changed, GroupRule("a", one))
    await teams.change(one, changed, role="owner", limits={}, actor="console", keeps_owner=False)
    assert await follow(auth, changed) == (one, "owner", "user")
    # Put again where groups had put it: from then on it is there by hand.
    again, _, _ = await auth.account()
    await follow(auth, again, GroupRule("a", one))
    await teams.put(one, again, "member", actor="console")
    assert await follow(auth, again) == (one, "member", "user")
    # Taken out by hand, it is put back as long as its groups say so.
    out, _, _ = await auth.account()
    await follow(auth, out, GroupRule("a", one))
    await teams.remove(one, out, actor="console", keeps_owner=False)
    assert await follow(auth, out, GroupRule("a", one)) == (one, "member", "user")
    assert await follow(auth, out) == (None, None, "user")


async def test_a_team_keeps_its_last_owner(auth: Auth) -> None:
    """Whom groups would take away or make a member; when there is another, it goes."""
    team, other = await team_of(auth), await team_of(auth)
    owner, _, _ = await auth.account()
    second, _, _ = await auth.account()
    await follow(auth, owner, GroupRule("a", team, "owner"))
    for rules in ((), (GroupRule("a", team),), (GroupRule("b", other, "owner"),)):
        assert await follow(auth, owner, *rules) == (team, "owner", "user")
    assert [act for act, _ in acts(auth, owner)][1:] == ["team.owner_kept"] * 3
    await follow(auth, second, GroupRule("a", team, "owner"))
    # Of two who lose it at once, one stays.
    await asyncio.gather(follow(auth, owner), follow(auth, second))
    owners = auth.query("select count(*) from accounts where team_id = %s and team_role = 'owner'", team)
    assert owners == [(1,)]


async def test_a_team_that_has_ended_gives_nothing(auth: Auth) -> None:
    """And one that ends takes those along whom groups put there."""
    team = await team_of(auth)
    account_id, _, _ = await auth.account()
    await follow(auth, account_id, GroupRule("a", team))
    await Teams(auth.postgres).delete(team, actor="console")
    assert await follow(auth, account_id, GroupRule("a", team)) == (None, None, "user")


async def test_a_group_makes_administrators_and_unmakes_its_own(auth: Auth) -> None:
    """Not those whom somebody made, no service, and not the last one."""
    admin = GroupRule("admins", administrator=True)
    account_id, _, _ = await auth.account()
    assert await follow(auth, account_id, admin) == (None, None, "admin")
    rest = auth.query("select id from accounts where role = 'admin' and disabled_at is null and id <> %s", account_id)
    for (other,) in rest:
        await auth.accounts.disable(other, actor="console")
    assert await follow(auth, account_id) == (None, None, "admin")
    assert acts(auth, account_id)[-1][0] == "account.administrator_kept"
    others = [(await auth.account())[0] for _ in range(2)]
    for other in others:
        await follow(auth, other, admin)
    assert await follow(auth, account_id) == (None, None, "user")
    await asyncio.gather(*(follow(auth, other) for other in others))
    assert auth.query("select count(*) from accounts where role = 'admin' and disabled_at is null") == [(1,)]
    by_hand, _, _ = await auth.account()
    await follow(auth, by_hand, admin)
    await auth.accounts.update(by_hand, actor="console", role="admin")
    assert await follow(auth, by_hand) == (None, None, "admin")
    service = await team_of(auth)
    ((of_team,),) = auth.query("select account_id from teams where id = %s", service)
    assert (await follow(auth, of_team, admin))[2] == "service"


FILE = """
# Who is what
- {group: owners, team: team_1, role: owner}
- {group: everyone, team: team_1}
- {group: admins, administrator: true}
"""


def test_the_operators_file_is_read(tmp_path: Path) -> None:
    """In its order; an empty one has no rules."""
    path = tmp_path / "groups.yaml"
    path.write_text(FILE)
    assert read(path) == [
        GroupRule("owners", "team_1", "owner"),
        GroupRule("everyone", "team_1"),
        GroupRule("admins", administrator=True),
    ]
    path.write_text("# nothing yet\n")
    assert read(path) == []


@pytest.mark.parametrize(
    "text",
    [
        "- {group: a}",
        "- {group: a, team: t, administrator: true}",
        "- {group: '', team: t}",
        "- {team: t}",
        "- {group: a, team: t, role: king}",
        "- {group: a, team: t, teem: x}",
        "group: a",
        "- [",
        "- !!python/object/apply:os.system ['true']",
        "\x00",
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    """As a whole, with the file's name: no rule is passed over in silence."""
    path = tmp_path / "groups.yaml"
    path.write_text(text)
    with pytest.raises(GroupRulesError, match=r"groups\.yaml"):
        GroupRules(path)
    with pytest.raises(GroupRulesError, match="cannot be read"):
        read(tmp_path / "missing.yaml")


async def test_a_changed_file_counts_at_the_next_log_in(tmp_path: Path) -> None:
    """While it is wrong or away, what it said before does."""
    path = tmp_path / "groups.yaml"
    path.write_text("- {group: a, team: t}")
    rules = GroupRules(path)
    assert [rule.group for rule in await rules.now()] == ["a"]
    for text, groups in (("- {group: b1, team: t}", ["b1"]), ("- [", ["b1"]), (None, ["b1"]), (FILE, ["owners"])):
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        now: list[Any] = [rule.group for rule in await rules.now()]
        assert now[:1] == groups
        assert REGISTRY.get_sample_value("moa_oidc_groups_refused") == float(text in ("- [", None))
