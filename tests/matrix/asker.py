"""Clients on Node, in one process for all rows: a start of Node takes three times as long as a question."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path

from deploy.local.stack import REPOSITORY

NODE = Path(__file__).parent / "node"


class Unavailable(Exception):
    """This machine has no Node, or cannot install the client. The message says which."""


@functools.cache
def installed() -> Path | str:
    """Install the official client for Node; return its folder, or why it cannot be."""
    if shutil.which("npm") is None:
        return "npm is not on this machine"
    folder = REPOSITORY / "build" / "node"
    if not (folder / "node_modules").exists() or any(
        (folder / file.name).read_bytes() != file.read_bytes() for file in NODE.iterdir()
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(NODE, folder)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            shutil.rmtree(folder)
            return f"npm cannot install the client here: {(done.stderr.strip().splitlines() or [''])[-1][:200]}"
    return folder


class Asker:
    """Asks a gateway from Node. Started with the first question."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._process: subprocess.Popen[str] | None = None

    def ask(self, how: str, what: str, model: str) -> str:
        """Return what `model` answered. Raises Unavailable where the client cannot be had."""
        if shutil.which("node") is None:
            raise Unavailable("node is not on this machine")
        folder = installed()
        if isinstance(folder, str):
            if how == "client":
                raise Unavailable(folder)
            folder = NODE
        if self._process is None:
            self._process = subprocess.Popen(
                ["node", str(folder / "ask.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {"how": how, "url": self._url, "key": self._key, "model": model, "what": what}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        assert "failed" not in told, told
        return str(told["said"])

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate(timeout=20)
