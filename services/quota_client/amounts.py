"""What quotas count, and over which periods limits count it.

A dimension is declared once, here: a field of `Amount`, what a request needs of it (`EACH_REQUEST`, or the operation
says), and what a consumption is charged of it (`charge`). Fields of `moa.quota.v1.Amount` and columns of the database
are named after it. A limit is one dimension over one period, named after both: `tokens_a_day`, as its column is
(docs/decisions/0019-amounts.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from enum import StrEnum
from functools import reduce
from typing import Final, NamedTuple, Self

from moa.quota.v1 import quota_pb2

NANO: Final = 1_000_000_000
"""Nano-dollars of a dollar."""
MICRO: Final = 1_000_000
"""Micro-credits of a credit."""
UNLIMITED: Final = 2**62
"""What stands for "no limit" in an amount: more than anybody uses, and room for a sum in 64 bits."""


_new: Final = tuple.__new__


class Amount(NamedTuple):
    """How much, by dimension. Arithmetic is by dimension, and takes no notice of an order among them."""

    tokens: int = 0
    """Tokens, prompt and completion together."""
    images: int = 0
    """Images."""
    nano_usd: int = 0
    """Billionths of a US dollar."""
    micro_credits: int = 0
    """Millionths of a credit, which tasks cost."""
    requests: int = 0
    """Requests that were answered, at least in part."""

    # What is on the path of every request is written out: it takes a fifth of the time of a loop.

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]
        a, b, c, d, e = self
        f, g, h, i, j = other
        return _new(Amount, (a + f, b + g, c + h, d + i, e + j))

    def __sub__(self, other: Amount) -> Amount:
        a, b, c, d, e = self
        f, g, h, i, j = other
        return _new(Amount, (a - f, b - g, c - h, d - i, e - j))

    def covers(self, other: Amount) -> bool:
        """Return whether there is as much of each."""
        a, b, c, d, e = self
        f, g, h, i, j = other
        return a >= f and b >= g and c >= h and d >= i and e >= j

    def __mul__(self, factor: int) -> Amount:  # type: ignore[override]
        return _made(value * factor for value in self)

    def __floordiv__(self, divisor: int) -> Amount:
        return _made(value // divisor for value in self)

    def __bool__(self) -> bool:
        return any(self)

    def at_most(self, other: Amount) -> Amount:
        """Return the lesser of each."""
        return self if other.covers(self) else _made(map(min, self, other))

    def at_least(self, other: Amount) -> Amount:
        """Return the greater of each."""
        return _made(map(max, self, other))

    def of(self, other: Amount) -> Amount:
        """Return only the dimensions that the other has any of."""
        return _made(value if asked else 0 for value, asked in zip(self, other, strict=True))

    @classmethod
    def read(cls, message: quota_pb2.Amount) -> Self:
        """Read a message."""
        m = message
        return _new(cls, (m.tokens, m.images, m.nano_usd, m.micro_credits, m.requests))

    @classmethod
    def read_limit(cls, message: quota_pb2.Amount) -> Self:
        """Read a message of limits, or of what is left of them; `UNLIMITED` where there is none."""
        given = {field.name: value for field, value in message.ListFields()}
        return _new(cls, [given.get(name, UNLIMITED) for name in cls._fields])

    def of_request(self) -> Amount:
        """Return this with what every request needs (`EACH_REQUEST`)."""
        a, b, c, d, e = self
        return _new(Amount, (a, b, c, d, e + 1))

    def numbered(self, number: str) -> str:
        """Return how a reservation's id ends: its number and this (`1f.300.0.4500`), credits only where there are any.

        What is counted beside these stands behind the number (`1f-1.300.0.4500`), where whoever does not know it passes
        over it: processes of the release before read the rest.
        """
        a, b, c, d, e = self
        if d:
            return f"{number}-{e}.{a}.{b}.{c}.{d}" if e else f"{number}.{a}.{b}.{c}.{d}"
        return f"{number}-{e}.{a}.{b}.{c}" if e else f"{number}.{a}.{b}.{c}"

    @classmethod
    def read_lease(cls, message: quota_pb2.Amount) -> Self:
        """Read what auth lends. Of what each request needs, an auth of the release before that counts none of it sets
        no bound: its leases do not tell it."""
        uncounted = (name for name in DIMENSIONS_OF_REQUESTS if not message.HasField(name))  # type: ignore[arg-type]  # one is a field
        return cls.read(message)._replace(**{name: getattr(HELPING, name) for name in uncounted})

    def message(self) -> quota_pb2.Amount:
        """Write a message; below zero is zero. Of what each request needs zero is told, too."""
        values = {name: value for name, value in zip(DIMENSIONS, self, strict=True) if value > 0}
        return quota_pb2.Amount(**(dict.fromkeys(DIMENSIONS_OF_REQUESTS, 0) | values))

    def message_within(self, limit: Amount) -> quota_pb2.Amount:
        """Write what is left of a limit, or the limit itself; dimensions without a limit are unset."""
        pairs = zip(DIMENSIONS, self, limit, strict=True)
        return quota_pb2.Amount(**{name: max(0, value) for name, value, most in pairs if most < UNLIMITED})


def _made(values: Iterable[int]) -> Amount:
    return _new(Amount, values)


DIMENSIONS: Final = Amount._fields
DOTTED: Final = 4
"""How many dimensions a reservation's id has behind its number; it has the others beside it."""
NOTHING: Final = Amount()
BOUNDLESS: Final = Amount(*[UNLIMITED] * len(DIMENSIONS))
"""What somebody without any limit may use."""
HELPING: Final = Amount(tokens=1 << 22, images=1 << 10, nano_usd=1 << 40, requests=1 << 12)
"""The most that is lent at once beyond a need, to spare later calls. No credits: each task is reserved by itself."""


EACH_REQUEST: Final = Amount(requests=1)
"""What every request needs, whatever it asks for."""
DIMENSIONS_OF_REQUESTS: Final = tuple(name for name in DIMENSIONS if getattr(EACH_REQUEST, name))
"""The names of what every request needs."""


def charge(settlement: quota_pb2.Settlement, reserved: Amount, nano_usd: int | None) -> Amount:
    """Write into a settlement what its usage is charged as, and return it: nothing of what nothing was reserved of.

    `nano_usd` is what the usage costs; None: its price is not known, which the settlement says, too.
    """
    charged, usage = settlement.charged, settlement.usage
    if nano_usd is None:
        # What came to nothing costs nothing, whatever its price.
        settlement.price_unknown = bool(usage.prompt_tokens or usage.completion_tokens or usage.images)
        nano_usd = 0
    tokens, images, cost, _, requests = reserved
    if tokens:
        charged.tokens = tokens = usage.prompt_tokens + usage.completion_tokens
    if images:
        charged.images = images = usage.images
    if cost:
        charged.nano_usd = cost = nano_usd
    if requests:
        requests = requests if settlement.provider else 0
        charged.requests = requests
    return _new(Amount, (tokens, images, cost, 0, requests))


def least(amounts: Iterable[Amount]) -> Amount:
    """Return the least of each dimension; everything, where there is no amount."""
    return reduce(Amount.at_most, amounts, BOUNDLESS)


def covered_by(needed: Amount, amounts: Iterable[Amount]) -> bool:
    """Return whether amounts cover another one together; no more of them are taken than that needs."""
    # Written out, as in `Amount`: a busy key has a hundred leases.
    a, b, c, d, e = needed
    for f, g, h, i, j in amounts:
        if a <= 0 and b <= 0 and c <= 0 and d <= 0 and e <= 0:
            return True
        a, b, c, d, e = a - f, b - g, c - h, d - i, e - j
    return a <= 0 and b <= 0 and c <= 0 and d <= 0 and e <= 0


def shared(consumed: Amount, reserved: Sequence[Amount]) -> list[Amount]:
    """Return what each reservation of one request pays: what those before it do not cover.

    What exceeds all of them is the first's.
    """
    shares: list[Amount] = []
    for amount in reserved:
        share = consumed.at_most(amount)
        consumed -= share
        shares.append(share)
    shares[0] += consumed
    return shares


class ReservationId(NamedTuple):
    """What a reservation's id says: made by the router, understood by auth, and all that a backend needs to settle.

    `<lease_id>.<number>.<tokens>.<images>.<nano_usd>`, with credits behind it. What else is counted stands behind the
    number: `<number>-<requests>`.
    """

    lease_id: str
    number: str
    """Unique within the lease."""
    amount: Amount
    """How much was reserved."""

    def __str__(self) -> str:
        return f"{self.lease_id}.{self.amount.numbered(self.number)}"

    @classmethod
    def parse(cls, text: str) -> ReservationId | None:
        """Read an id; None when it is none. Of dimensions that an earlier release did not know nothing was reserved."""
        lease_id, number, *counts = text.split(".") if "." in text else ("", "")
        number, *further = number.split("-")
        if not 2 <= len(counts) <= DOTTED or len(further) > len(DIMENSIONS) - DOTTED:
            return None
        if not all(map(_is_count, (*counts, *further))):
            return None
        return cls(lease_id, number, Amount(*map(int, counts), *[0] * (DOTTED - len(counts)), *map(int, further)))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


class Period(StrEnum):
    """Over what a limit counts. A day is the grain: a month and the total are sums of days."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    @property
    def suffix(self) -> str:
        """How the name of a limit over it ends."""
        return "in_total" if self is Period.TOTAL else f"a_{self}"

    def began(self, day: date) -> date:
        """Return the first day of the period that a day is in."""
        if self is Period.DAY:
            return day
        return day.replace(day=1) if self is Period.MONTH else EVER

    def next(self, day: date) -> date | None:
        """Return the first day of the period after the one that a day is in; None where none comes."""
        if self is Period.DAY:
            return day + timedelta(days=1)
        return (day.replace(day=1) + timedelta(days=32)).replace(day=1) if self is Period.MONTH else None


EVER: Final = date(1970, 1, 1)
"""The first day of the total."""
PERIODS: Final = tuple(Period)


@dataclass(frozen=True, kw_only=True)
class AmountLimits:
    """Limits of an account or a key, one a field. None: no limit of its own. 0: nothing."""

    tokens_a_day: int | None = None
    images_a_day: int | None = None
    nano_usd_a_day: int | None = None
    requests_a_day: int | None = None
    tokens_a_month: int | None = None
    images_a_month: int | None = None
    nano_usd_a_month: int | None = None
    requests_a_month: int | None = None
    tokens_in_total: int | None = None
    images_in_total: int | None = None
    nano_usd_in_total: int | None = None
    requests_in_total: int | None = None

    def amounts(self) -> dict[str, int | None]:
        """Return the limits by name."""
        return {name: getattr(self, name) for name in LIMITS}


LIMITS: Final = tuple(field.name for field in fields(AmountLimits))
"""The names of limits that people set."""


_NAMED: Final = {f"{name}_{period.suffix}": (name, period) for period in PERIODS for name in DIMENSIONS}


def limit_of(dimension: str, period: Period) -> str:
    """Return the name of a limit."""
    return f"{dimension}_{period.suffix}"


GRANTED: Final = limit_of("micro_credits", Period.TOTAL)
"""The limit that nobody sets: the credits that an account was granted, in all."""


def shown(dimension: str, value: int) -> str:
    """Return an amount of one dimension as people write it: `100,000 tokens`, `1 image`, `$5.00`."""
    if dimension == "nano_usd":
        return f"${dollars(value)}"
    if dimension == "micro_credits":
        return f"{_decimal(value, MICRO, 6)} credits"
    return f"{value:,} {dimension.removesuffix('s') if value == 1 else dimension}"


def dollars(nano_usd: int) -> str:
    """Return dollars, exactly: `5.00`, `0.000000125`."""
    return _decimal(nano_usd, NANO, 9)


def _decimal(value: int, unit: int, places: int) -> str:
    whole, part = divmod(value, unit)
    cents = f"{part:0{places}}".rstrip("0")
    return f"{whole}.{cents:0<2}"


def named(name: str) -> tuple[str, Period]:
    """Return the dimension and the period of a limit, by its name."""
    return _NAMED[name]


def limit_shown(name: str, limit: int) -> str:
    """Return a limit as people write it: `100,000 tokens a day`, `$5.00 a month`."""
    dimension, period = _NAMED[name]
    return f"{shown(dimension, limit)} {'in all' if period is Period.TOTAL else f'a {period}'}"


def field_of(name: str) -> str:
    """Return what `moa.account.v1.Limits` calls a limit: dollars are written as such there."""
    return name.removeprefix("nano_").replace("_a_minute", "_per_minute")
