"""What living holders have idle is called back for who is refused for its sake, who waits no longer than that takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, date, datetime

from services.auth.domain.accounts import Owner, Short, VerifiedKey
from services.auth.domain.recalls import PAUSES_S, Recalls
from services.quota_client.amounts import Period

WHO = VerifiedKey(
    account_id="acc_1",
    key_id="key_1",
    digest=b"",
    ended=False,
    rules=(),
    unlimited=False,
    day=date(2026, 11, 30),
    resets_at=datetime(2026, 12, 1, tzinfo=UTC),
    standings=(),
    team_id="team_1",
)
HELD = Short(Owner.ACCOUNT, "tokens", Period.DAY, 100, back_in_s=27)
USED_UP = HELD._replace(back_in_s=None)


class _World:
    """Recalls in a time of their own, and what is found at each try."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[str] = []
        self.tries: list[float] = []
        self.comes: tuple[int, str | Short] = (99, HELD)
        """At the how manieth try what is found, and what."""
        self.recalls = Recalls(self.tell, clock=lambda: self.now, pause=self.pause)

    async def tell(self, subjects: Collection[str]) -> None:
        self.told += subjects
        for subject in subjects:
            self.recalls.heard(subject)

    async def pause(self, seconds: float) -> None:
        self.now += seconds

    async def again(self) -> str | Short:
        self.tries.append(self.now)
        count, found = self.comes
        return found if len(self.tries) >= count else HELD

    async def waited(self, who: VerifiedKey = WHO, short: Short = HELD, *, alone: bool = True) -> str | Short:
        self.tries.clear()
        return await self.recalls.waited(who, short, self.again, alone=alone)


async def test_what_comes_back_is_had_and_what_is_used_up_meanwhile_is_told() -> None:
    """Tries follow each other until then; every replica is told once, and holders are for two seconds."""
    world = _World()
    world.comes = 3, "a lease"
    assert not world.recalls.wants(WHO)
    assert await world.waited() == "a lease"
    assert (world.told, len(world.tries)) == (["acc_1"], 3)
    assert world.recalls.wants(WHO)
    assert not world.recalls.wants(replace(WHO, account_id="acc_2"))
    world.now = 1002.5
    assert not world.recalls.wants(WHO)
    world.comes = 1, USED_UP
    assert await world.waited() == USED_UP
    assert (world.told, len(world.tries)) == (["acc_1", "acc_1"], 2)


async def test_who_waited_in_vain_is_refused_at_once_for_a_while() -> None:
    """Requests of one key that come at once would else wait for each other's waiting; another key waits."""
    world = _World()
    assert await world.waited() == HELD
    assert (world.now, len(world.tries)) == (1000 + sum(PAUSES_S), len(PAUSES_S))
    before = world.now
    assert await world.waited() == HELD
    assert (world.now, world.tries) == (before, [])
    assert await world.waited(replace(WHO, key_id="key_2")) == HELD
    assert world.now > before
    world.now = before + 5.1
    assert await world.waited() == HELD
    assert len(world.tries) == len(PAUSES_S)


async def test_one_of_many_requests_of_a_key_does_not_wait() -> None:
    """What is idle is called back for it all the same."""
    world = _World()
    assert await world.waited(alone=False) == HELD
    assert (world.now, world.tries, world.told) == (1000, [], ["acc_1"])
    assert world.recalls.wants(WHO)


async def test_nobody_waits_for_what_cannot_be_idle() -> None:
    """A limit that is used up brings nothing back, and credits are set aside for tasks that were accepted."""
    world = _World()
    credit = Short(Owner.ACCOUNT, "micro_credits", Period.TOTAL, 1, back_in_s=27)
    for short in (USED_UP, credit):
        assert await world.waited(short=short) == short
    assert (world.now, world.told) == (1000, [])


async def test_a_teams_quota_is_called_back_from_all_of_the_team() -> None:
    """And from no account for the sake of the team's other limits."""
    world = _World()
    world.comes = 1, "a lease"
    await world.waited(short=HELD._replace(owner=Owner.TEAM))
    assert world.told == ["team_1"]
    assert world.recalls.wants(replace(WHO, account_id="acc_2"))
    assert not world.recalls.wants(replace(WHO, team_id=""))
