"""What every handler of the router does first and notes last."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import replace

from moa.common.v1 import usage_pb2
from services.catalogue import today
from services.common import byok, errors
from services.common.credential import Credential
from services.common.dialects import BY_SERVICE
from services.common.rpc import call as calls
from services.common.throttle import Throttle
from services.quota_client import grants
from services.quota_client.tags import tags_of
from services.router import metrics
from services.router.domain.answer import Answer
from services.router.domain.caller import Caller, key_of
from services.router.domain.paced_attempts import MOST_WAIT_S
from services.router.traffic import TRAFFIC

MAX_WAIT_KEY: Final = "moa-max-wait"
"""The header by which a caller says for how many seconds its request may wait for a provider that is at its limit."""
_SECONDS: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?")
_OWN_KEY_A_MINUTE: Final = 60
_OWN_KEYS_OF_ADDRESS_A_MINUTE: Final = 240
"""Of all keys together that come from one address: a key of the right shape is made up in no time."""
FALLBACK_KEY: Final = "moa-fallback"
"""The header by which a caller says that it wants no model but the one that it asks for: `none`."""


def begin(context: Any) -> Caller:
    """Return the caller of the call that is being served.

    Raises Unauthenticated for two different keys, InvalidField for an unknown `moa-fallback`, and for a wrong
    `moa-max-wait` or `moa-tags`.
    """
    call = calls.current()
    metadata = call.metadata if call.metadata is not None else calls.metadata_of(context)
    call.key = key_of(metadata)
    left_s = context.time_remaining()
    fallback, max_wait_s = _wishes(metadata)
    return Caller(
        key=call.key,
        request_id=call.request_id,
        began=time.perf_counter(),
        until=math.inf if left_s is None else time.monotonic() + left_s,
        fallback=fallback,
        max_wait_s=max_wait_s,
        tags=tags_of(metadata),
        dialect=dialect_of(call.method),
    )


@lru_cache(maxsize=1024)
def dialect_of(method: str) -> str:
    """Return the name of the dialect that a method (`/package.Service/Method`) answers in."""
    dialect = BY_SERVICE.get(method.strip("/").partition("/")[0])
    return dialect.name if dialect is not None else "grpc"


def _wishes(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[bool, float]:
    """Return whether another model may answer, and how many seconds a request may wait for a provider at its limit.

    Raises InvalidField for a wish that is not known.
    """
    fallback, max_wait_s = True, 0.0
    for name, value in metadata:
        if name == FALLBACK_KEY:
            if value != "none":
                raise errors.InvalidField(f"{FALLBACK_KEY} may only be none", param=FALLBACK_KEY)
            fallback = False
        elif name == MAX_WAIT_KEY:
            if not isinstance(value, str) or not _SECONDS.fullmatch(value) or float(value) > MOST_WAIT_S:
                message = f"{MAX_WAIT_KEY} is a number of seconds, {MOST_WAIT_S:g} at most"
                raise errors.InvalidField(message, param=MAX_WAIT_KEY)
            max_wait_s = float(value)
    return fallback, max_wait_s


def own_keys(service_token: Credential, takes_key: Callable[[str], bool] | None) -> Callable[[Any], Caller]:
    """Return a `begin` for dialects where callers may bring a provider's key, if the operator lets them.

    `takes_key` tells such a key; None: callers may bring none.
    Such a caller runs as the account `byok`, by a grant in the place of a key of this gateway. Its pace is counted by
    its key's hash and by its address, so that it slows no other; `begin` raises RateLimited beyond it.
    """
    if takes_key is None:
        return begin
    acting = grants.ActingFor(account_id=byok.ACCOUNT_ID, key_id=byok.KEY_ID)
    by_key = Throttle(tries=_OWN_KEY_A_MINUTE, every_s=60 / _OWN_KEY_A_MINUTE)
    by_address = Throttle(tries=_OWN_KEYS_OF_ADDRESS_A_MINUTE, every_s=60 / _OWN_KEYS_OF_ADDRESS_A_MINUTE)

    def begun(context: Any) -> Caller:
        caller = begin(context)
        if not takes_key(caller.key):
            return caller
        try:
            by_address.check(calls.current().address)
            by_key.check(hashlib.sha256(caller.key.encode()).hexdigest())
        except errors.RateLimited as beyond:
            message = f"at most {_OWN_KEY_A_MINUTE} requests a minute with a key of one's own"
            raise errors.RateLimited(message, retry_after_s=beyond.retry_after_s) from None
        calls.current().key = standing_in = grants.mint(service_token, acting)
        return replace(caller, key=standing_in, own_key=caller.key)

    return begun


def note(answer: Answer[Any], caller: Caller) -> None:
    """Put who answers, and for whom, on the call's log line and into the metrics; the consumption when it is known."""
    call = calls.current()
    fields = call.fields
    provider, model, label = answer.model.provider, answer.model.id, answer.model.label
    fields["account"] = answer.reservation.account_id
    fields["provider"] = provider
    fields["model"] = model
    day = today()
    _note_others(answer, fields)
    if answer.route:
        fields["route"] = answer.route
        metrics.ROUTED.labels(answer.route, provider, label).inc()
    took_s = time.perf_counter() - caller.began
    metrics.of_model(provider, label).first_event.observe(took_s)
    TRAFFIC.began(answer.route, provider, label, took_s)
    if answer.model is not answer.asked:
        TRAFFIC.fell_back(answer.route, answer.asked.provider, answer.asked.label)

    def settled(consumed: usage_pb2.Usage) -> None:
        _note_others(answer, fields)
        call.charged = bool(consumed.prompt_tokens or consumed.completion_tokens or consumed.images)
        fields["tokens"] = consumed.prompt_tokens + consumed.completion_tokens
        if consumed.images:
            fields["images"] = consumed.images
        cost = metrics.charged(answer.model, consumed, day, team=answer.reservation.team_id)
        if cost is not None:
            fields["cost_usd"] = round(cost, 8)

    def broke(error: errors.MoaError) -> None:
        call.broken = True
        fields["broken"] = errors.word(error.reason)
        metrics.BROKEN.labels(answer.model.provider, errors.word(error.reason)).inc()

    answer.on_settled = settled
    answer.on_broken = broke


def _note_others(answer: Answer[Any], fields: dict[str, Any]) -> None:
    """Put on the log line that others were asked, and who answers; in the middle of a stream that may change."""
    if answer.attempts.count > 1:
        fields["attempts"] = answer.attempts.count
        fields["provider"], fields["model"] = answer.model.provider, answer.model.id
    if answer.model is not answer.asked:
        fields["asked"] = answer.asked.full_id
