"""Providers' stored keys, as auth has them: asked for every few seconds, and taken without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import grpc

from moa.operator.v1 import operator_store_service_pb2 as pb
from moa.operator.v1 import operator_store_service_pb2_grpc
from services.catalogue import Environment
from services.common import logs
from services.common.beats import until_beat_s
from services.common.credential import Credential
from services.common.rpc.client import metadata

EVERY_S: Final = 15.0
"""How often auth is asked whether any has changed."""
_WAIT_S: Final = 3.0
_NAMED: Final = "stored"
"""What a variable is said to be where its value is nobody's business."""

_log = logs.get("provider_keys")


class StoredKeys:
    """Keeps an environment's stored variables as auth has them. While auth is away, what was known stays.

    Args:
        auth: The channel to the auth service.
        service_token: The credential between services.
        environment: What takes them.
        values: Whether their values are wanted, as for asking providers; else which there are.
        changed: Called with the variables whose stored values changed, once the environment has them.
    """

    def __init__(
        self,
        auth: grpc.aio.Channel,
        *,
        service_token: Credential,
        environment: Environment,
        values: bool,
        changed: Callable[[frozenset[str]], None],
    ) -> None:
        self._stub = operator_store_service_pb2_grpc.OperatorStoreServiceStub(auth)
        self._token = service_token
        self._environment = environment
        self._values = values
        self._changed = changed
        self._version = 0
        self._asking = asyncio.Lock()
        self._whole = True

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(until_beat_s(EVERY_S))

    async def ask(self) -> None:
        """Ask once. Never raises for a call that fails."""
        async with self._asking:
            request = pb.ListProviderKeysRequest(known_version=self._version, values=self._values)
            try:
                response: pb.ListProviderKeysResponse = await self._stub.ListProviderKeys(
                    request, metadata=metadata(self._token, "provider_keys"), timeout=_WAIT_S
                )
            except grpc.aio.AioRpcError as error:
                if self._whole:
                    _log.info("provider_keys.not_told", code=error.code().name)
                self._whole = False
                return
            self._whole = True
            if response.unchanged:
                return
            self._version = response.version
            readable = [key for key in response.keys if not key.unreadable]
            if unreadable := sorted(key.variable for key in response.keys if key.unreadable):
                _log.warning("provider_keys.unreadable", variables=unreadable)
            stored = {key.variable: key.value if self._values else _NAMED for key in readable}
            if changed := self._environment.store(stored):
                _log.info("provider_keys.changed", variables=sorted(changed))
                self._changed(changed)
