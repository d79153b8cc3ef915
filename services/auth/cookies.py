"""The cookie in which a browser keeps the console's session, where no script reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

ASKED_KEY: Final = "moa-console"
"""The header of a page that wants its session in a cookie. The edge takes none without it."""
NAME: Final = "moa-session"
LASTS_S: Final = 12 * 3600
"""The longest that a session lasts."""


async def keep_session(context: Any, token: str, *, also: Sequence[str] = ()) -> str:
    """Set a session's cookie where its caller asks for one; return what the answer then tells of the token, nothing.

    An empty token takes the cookie away. `also` are other cookies that the answer sets.
    """
    others = [("set-cookie", cookie) for cookie in also]
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    if ASKED_KEY not in metadata:
        if others:
            await context.send_initial_metadata(others)
        return token
    # Over TLS, browsers keep the name from every other host, and send the cookie over TLS alone.
    secure = metadata.get("x-forwarded-proto") == "https"
    lasts_s = LASTS_S if token else 0
    cookie = f"{'__Host-' if secure else ''}{NAME}={token}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict"
    await context.send_initial_metadata([("set-cookie", cookie + ("; Secure" if secure else "")), *others])
    return ""
