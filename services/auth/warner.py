"""Warns of limits that are nearly used up, by webhook and e-mail, in the background."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any, Final, Protocol

from prometheus_client import Counter

from services.auth.adapters.mail import Mailer
from services.auth.adapters.warnings import PERCENTS, Delivery, Warnings
from services.common import logs, signing
from services.common.background_loop import BackgroundLoop
from services.common.beats import until_beat_s
from services.common.clock import now_utc
from services.common.errors import InvalidField, MoaError, Unavailable
from services.common.isolate import note_failure
from services.quota_client.amounts import field_of, limit_shown, named, shown

_log = logs.get("warner")

WARNED: Final = Counter(
    "moa_warnings_total", "Warnings of limits, by channel and what became of them.", ["channel", "outcome"]
)
EVERY_S: Final = 2.0
_REST_S: Final = 10.0
"""How often it looks while nobody is to be warned."""
_AT_ONCE: Final = 16
_TIMEOUT_S: Final = 20.0
PAUSES_S: Final = (5.0, 30.0, 300.0, 3600.0, 6 * 3600.0)
"""Pauses between attempts; after the last one a delivery is given up."""


class Sender(Protocol):
    """Sends a POST through the egress guard."""

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """Return the receiver's HTTP status. Raises InvalidField for a target that is refused, else MoaError."""


class Warner(BackgroundLoop):
    """Finds what is to be warned of, and delivers it, while its context is open.

    Args:
        warnings: Where both is kept.
        sender: The way out for webhooks.
        mailer: The way out for e-mail.
        secrets: What signs webhooks.
        pauses_s: Between attempts.
    """

    task_name = "warner"

    def __init__(
        self,
        warnings: Warnings,
        sender: Sender,
        mailer: Mailer,
        secrets: signing.Secrets,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._warnings = warnings
        self._sender = sender
        self._mailer = mailer
        self._secrets = secrets
        self._pauses_s = pauses_s

    async def _run(self) -> None:
        while True:
            rests = True
            try:
                rests = not await self._warnings.watched()
                if not rests:
                    await self.round()
            except Unavailable:
                pass
            except Exception:
                # A bug must not end the only thing that warns.
                _log.exception("warn.failed")
            await asyncio.sleep(until_beat_s(_REST_S) if rests else EVERY_S)

    async def round(self) -> None:
        """Write what is to be warned of, and deliver what is due. Raises Unavailable."""
        await self._warnings.note()
        while due := await self._warnings.due(_AT_ONCE, lease_s=(len(PERCENTS) + 1) * _TIMEOUT_S):
            of_limits: dict[tuple[object, ...], list[Delivery]] = {}
            for one in due:
                of_limits.setdefault((one.channel, one.target, one.subject, one.limit, one.starts), []).append(one)
            await asyncio.gather(*map(self._deliver_all, of_limits.values()))

    async def _deliver_all(self, deliveries: Iterable[Delivery]) -> None:
        """Deliver what somebody is told of one limit in its order: who hears of 100% first takes 80% for news."""
        for one in deliveries:
            await self._deliver(one)

    async def _deliver(self, delivery: Delivery) -> None:
        """Send a warning once, and note how that went. One that cannot be noted is sent again, under the same id."""
        send: Callable[[Delivery], Awaitable[None]] = self._post if delivery.channel == "webhook" else self._mail
        try:
            await send(delivery)
        except InvalidField as refused:
            await self._ended(delivery, "given_up", self._warnings.give_up(delivery, refused.message[:200]))
        except MoaError as failure:
            await self._failed(delivery, failure.message[:200])
        except Exception as error:
            note_failure("warn", delivery.id, error)
            await self._failed(delivery, "it could not be sent")
        else:
            await self._ended(delivery, "delivered", self._warnings.delivered(delivery))

    async def _failed(self, delivery: Delivery, why: str) -> None:
        if delivery.attempts > len(self._pauses_s):
            await self._ended(delivery, "given_up", self._warnings.give_up(delivery, why))
        else:
            pause_s = self._pauses_s[delivery.attempts - 1]
            await self._ended(delivery, "failed", self._warnings.again(delivery, why, pause_s))

    @staticmethod
    async def _ended(delivery: Delivery, outcome: str, noted: Awaitable[None]) -> None:
        WARNED.labels(delivery.channel, outcome).inc()
        try:
            await noted
        except Unavailable:
            _log.info("warning.unnoted", delivery=delivery.id)

    async def _post(self, delivery: Delivery) -> None:
        body = json.dumps(body_of(delivery), separators=(",", ":"))
        secrets = [self._secrets.secret(delivery.subject, 1)]
        headers = signing.headers(secrets, delivery.id, body, now_utc())
        status = await self._sender.post(delivery.target, headers=headers, body=body.encode(), timeout_s=_TIMEOUT_S)
        if status == 410:
            raise InvalidField("the receiver is gone")
        if not 200 <= status < 300:
            raise Unavailable(f"the receiver answered {status}")

    async def _mail(self, delivery: Delivery) -> None:
        await self._mailer.send(delivery.target, *mail_of(delivery), message_id=delivery.id)


def body_of(delivery: Delivery) -> dict[str, Any]:
    """Return what a webhook tells."""
    dimension, _ = named(delivery.limit)
    return {
        "type": "limit.warning",
        "timestamp": f"{delivery.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "data": {
            "subject": delivery.subject,
            "name": delivery.label,
            "limit": field_of(delivery.limit),
            "percent": delivery.percent,
            "used": shown(dimension, delivery.used),
            "most": shown(dimension, delivery.most),
            "period_starts": delivery.starts.isoformat(),
            "resets_at": f"{delivery.resets_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if delivery.resets_at else None,
        },
    }


def mail_of(delivery: Delivery) -> tuple[str, str]:
    """Return the subject and the text of an e-mail."""
    dimension, _ = named(delivery.limit)
    what = "team" if delivery.subject.startswith("team_") else "budget"
    whose = f"the {what} {delivery.label or delivery.subject}"
    limit = limit_shown(delivery.limit, delivery.most)
    again = f"It begins anew at {delivery.resets_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC." if delivery.resets_at else ""
    beyond = "Requests are refused until then." if delivery.percent >= 100 and again else ""
    lines = (
        f"{delivery.percent}% of the limit of {limit} of {whose} is used: {shown(dimension, delivery.used)}.",
        f"{again} {beyond}".strip(),
        f"({delivery.subject}, {field_of(delivery.limit)}, the period that began on {delivery.starts})",
    )
    return f"{delivery.percent}% of the limit of {whose} is used", "\n\n".join(filter(None, lines)) + "\n"
