"""Run the router and the text service as one process: `python -m services.colocated`; `--check` as the router's."""

from __future__ import annotations

import asyncio

from services.common import memory
from services.common.credential import credential_of
from services.common.rpc.local import LocalServer
from services.router import process as router
from services.router.settings import RouterSettings
from services.text.service import SERVICE
from services.text.settings import TextSettings


async def main(config: RouterSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set: the router at its address, the text service to this router alone."""
    memory.give_back_freed()
    # Metrics of both are the process's own, and the router answers for them.
    providing = TextSettings(
        service_token=config.service_token, service_token_file=config.service_token_file, metrics_port=0
    )
    local = LocalServer(service_token=credential_of(config))
    with router.ending_with_faults():
        async with SERVICE.serve(providing, server=local), router.serve(config, text=local.channel):
            await stop.wait()


if __name__ == "__main__":
    router.run(main)
