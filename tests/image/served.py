"""The image service in a process of its own, whose memory can be looked at: `python -m tests.image.served FILE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop
from pydantic import SecretStr

from services.common import logs, memory
from services.image.__main__ import SERVICE
from services.image.settings import ImageSettings
from tests.image.harness import TOKEN


async def serve(path: Path) -> None:
    """Serve the catalogue at `path` on a free port, which is printed, until killed."""
    config = ImageSettings(service_token=SecretStr(TOKEN), catalogue=path, listen="127.0.0.1:0")
    async with SERVICE.serve(config) as served:
        print(served.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logs.configure("image", "error")
    memory.give_back_freed()
    uvloop.run(serve(Path(sys.argv[1])))
