"""The image service in a process of its own, whose memory can be looked at: `python -m tests.image.served FILE`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from services.common import logs, memory
from services.common.catalogue import Watched
from services.common.rpc.server import Server
from services.image.servicer import ImageServicer, add_to_server
from services.image.targets import Targets
from tests.image.harness import TOKEN


async def serve(path: Path) -> None:
    """Serve the catalogue at `path` on a free port, which is printed, until killed."""
    server = Server(service_token=TOKEN)
    add_to_server(ImageServicer(Watched(path), Targets(os.environ)), server.grpc)
    print(await server.start("127.0.0.1:0"), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    logs.configure("image", "error")
    memory.give_back_freed()
    uvloop.run(serve(Path(sys.argv[1])))
