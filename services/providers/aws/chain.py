"""AWS credentials as botocore finds them: profile, SSO, web identity, container, instance role; renewed in time.

Imported only where they are asked for: botocore's session costs some megabytes. Everything that botocore does here
may read files or ask an endpoint, so it happens in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import botocore.session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from services.common import logs, scrub
from services.common.errors import UpstreamAuth
from services.providers.aws.sigv4 import signed
from services.providers.credentials import JSON_HEADERS
from services.providers.http.client import Outgoing

_MUST_RENEW_S: Final = 600
"""From so long before their end on, credentials are not used until they are renewed; before that, while they are."""
_log = logs.get("providers")


class ChainSigV4:
    """Signs each request with what botocore's credential chain gives.

    Args:
        service: The service's signing name (`bedrock`).
        region: Its region.
        instance_role: Whether the instance's metadata service may be asked. Where there is none, asking hangs.
        more: Headers that every request carries.
    """

    def __init__(
        self, *, service: str, region: str, instance_role: bool, more: Mapping[str, str] = JSON_HEADERS
    ) -> None:
        self._service = service
        self._region = region
        self._instance_role = instance_role
        self._more = more
        self._source: Any = None
        """Botocore's credentials, which know when they end."""
        self._frozen: ReadOnlyCredentials | None = None
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """Return the request's headers with its signature. Raises UpstreamAuth when there are no credentials."""
        return await signed(outgoing, self._more, await self._credentials(), self._service, self._region)

    def rest(self, headers: Mapping[str, str], seconds: float) -> bool:
        """Forget the credentials that were refused, so that the next request has them found anew."""
        if self._frozen is not None and f"Credential={self._frozen.access_key}/" in headers.get("Authorization", ""):
            self._source = self._frozen = None
        return False

    async def _credentials(self) -> ReadOnlyCredentials:
        if self._frozen is None or self._due(_MUST_RENEW_S):
            async with self._lock:  # one look-up serves all who wait
                if self._frozen is None or self._due(_MUST_RENEW_S):
                    await self._renew()
        elif self._due(None) and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew_early())
        assert self._frozen is not None
        return self._frozen

    def _due(self, within_s: int | None) -> bool:
        renewal = getattr(self._source, "refresh_needed", None)  # credentials that never end have none
        return bool(renewal is not None and renewal(within_s))

    async def _renew_early(self) -> None:
        with contextlib.suppress(UpstreamAuth):
            # What is in hand is good for some minutes yet; the next request tries again.
            await self._renew()

    async def _renew(self) -> None:
        try:
            self._source, frozen = await asyncio.to_thread(self._frozen_of, self._source)
        except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError, KeyError) as error:
            _log.error("credentials.missing", service=self._service, why=type(error).__name__)
            raise UpstreamAuth("the gateway's credentials for this provider cannot be had") from error
        scrub.renewed("aws chain", *filter(None, (frozen.access_key, frozen.secret_key, frozen.token)))
        self._frozen = frozen

    def _frozen_of(self, source: Any) -> tuple[Any, ReadOnlyCredentials]:
        """Find credentials, or renew those of `source`. Runs in a thread."""
        if source is None:
            session = botocore.session.Session()
            if not self._instance_role:
                session.get_component("credential_provider").remove("iam-role")
            source = session.get_credentials()
            if source is None:
                raise ValueError("no credentials in the chain")
        return source, source.get_frozen_credentials()
