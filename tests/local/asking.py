"""What `test_forking` has forked: it has a large request worked on, reads the catalogue, and tells how."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path


def where(data: bytes) -> tuple[int, int, dict[str, str]]:
    """Return who works: its parent, how much there is to do, and its variables."""
    return os.getppid(), len(data), dict(os.environ)


if __name__ == "__main__":
    from services.catalogue import load
    from services.common.helper_process import HelperProcess
    from tests.local import asking

    async def helped() -> tuple[int, int, dict[str, str]]:
        """Ask a helper process."""
        helper = HelperProcess()
        try:
            return await helper.run(asking.where, bytes(1_000_000), "someone")
        finally:
            await helper.aclose()

    parent, size, variables = asyncio.run(helped())
    models = len(load(Path(os.environ["MOA_CATALOGUE"])).models)
    told = {"sibling": parent == os.getppid(), "size": size, "secret": "WANTED" in variables}
    print(json.dumps({**told, "models": models > 0, "parsed": "yaml" in sys.modules}), flush=True)
