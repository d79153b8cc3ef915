"""Which limit a refusal names, and when it says that there is more: what others hold comes back before tomorrow."""

from __future__ import annotations

from datetime import date

import pytest

from services.auth.domain.accounts import Owner, Short, Standing
from services.auth.domain.held import Held, short_of
from services.quota_client.amounts import Amount, Period

TODAY, YESTERDAY = date(2026, 11, 30), date(2026, 11, 29)
NEED = Amount(tokens=50)


def standing(subject: str, taken: int, **limits: int) -> Standing:
    by_period = {period: Amount(tokens=taken) for period in Period}
    owner = Owner.TEAM if subject == "team_1" else Owner.ACCOUNT
    return Standing.of(owner, subject, limits, by_period)


def held(tokens: int, back_in_s: float, *subjects: str, day: date = TODAY) -> Held:
    return Held(frozenset(subjects or ("acc",)), day, back_in_s, Amount(tokens=tokens))


ACCOUNT = standing("acc", 100, tokens_a_day=100)
A_DAY = Short(Owner.ACCOUNT, "tokens", Period.DAY, 100)


@pytest.mark.parametrize(
    ("standings", "holds", "expected"),
    [
        ([ACCOUNT], [], A_DAY),
        ([ACCOUNT], [held(49, 3)], A_DAY),
        ([ACCOUNT], [held(49, 3), held(1, 60), held(1, 20)], A_DAY._replace(back_in_s=20)),
        ([ACCOUNT], [held(100, 3, "another")], A_DAY),
        ([ACCOUNT], [held(100, 3, day=YESTERDAY)], A_DAY),
        (
            [standing("acc", 100, tokens_a_month=100)],
            [held(100, 3, day=YESTERDAY)],
            Short(Owner.ACCOUNT, "tokens", Period.MONTH, 100, "", 3),
        ),
        (
            [ACCOUNT, standing("team_1", 100, tokens_in_total=120)],
            [held(100, 3)],
            Short(Owner.TEAM, "tokens", Period.TOTAL, 120),
        ),
        (
            [ACCOUNT, standing("team_1", 100, tokens_in_total=120)],
            [held(50, 3), held(50, 40, "team_1", "another")],
            A_DAY._replace(back_in_s=40),
        ),
        ([standing("acc", 50, tokens_a_day=100)], [], None),
        (
            [standing("acc", 100, tokens_a_month=100), standing("team_1", 0, tokens_a_day=49)],
            [held(100, 3)],
            Short(Owner.TEAM, "tokens", Period.DAY, 49, needed=50),
        ),
    ],
)
def test_a_limit_that_is_used_up_is_named_before_one_of_which_too_much_is_held(
    standings: list[Standing], holds: list[Held], expected: Short | None
) -> None:
    """Of what is held it counts what is held of each limit, and the time by which enough of all is free again."""
    assert short_of(TODAY, standings, NEED, holds) == expected
