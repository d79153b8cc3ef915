"""The code that the console shows of a request: read from the page, and run as it stands."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.local.stack import REPOSITORY
from tests.e2e.consoles import Console, House

CLIENTS: Final = ("curl", "Python · openai", "Python · google-genai", "JavaScript", "Python · gRPC")


async def samples_of(console: Console) -> dict[str, str]:
    """Return the code of each client, and close what shows it."""
    page = console.page
    await console.button("Show the code")
    await page.until("document.querySelectorAll('[role=tab]').length === 5")
    samples = {}
    for place in range(5):
        await page.run(f"document.querySelectorAll('[role=tab]')[{place}].click()")
        name = await page.run("document.querySelector('[role=tab][aria-selected=true]').textContent")
        samples[name] = await page.run("document.querySelector('[data-code]').textContent")
    await page.press("Escape")
    assert tuple(samples) == CLIENTS
    return samples


async def run(house: House, folder: Path, name: str, code: str) -> str:
    """Run a client's code in a folder, with nothing but a key in its environment; return what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "MOA_API_KEY": house.stack.api_key,
        "PYTHONPATH": str(REPOSITORY / "gen"),
        "HOME": str(folder),
    }
    if name == "curl":
        line = ["sh", "-c", code]
    elif name == "JavaScript":
        node = shutil.which("node")
        assert node, "Node is missing"
        (folder / "sample.mjs").write_text(code)
        line = [node, "sample.mjs"]
    else:
        line = [sys.executable, "-c", code]
    done = await asyncio.to_thread(
        subprocess.run, line, env=environment, capture_output=True, text=True, timeout=90, cwd=folder
    )
    assert done.returncode == 0, (name, done.stderr[-800:])
    return done.stdout
