"""Gateways of others, which `make bench` measures beside this one: `python -m bench.peers` puts them into build/peers.

LiteLLM knows one master key and has no database; Portkey checks no keys and asks whom the caller's headers name. None
counts what callers use.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.target import Meter, Target
from bench.upstream import MODEL
from deploy.local import installer
from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY

NAMES: Final = ("portkey", "litellm")
"""What they are called in tables."""
FOLDER: Final = REPOSITORY / "build" / "peers"
LITELLM: Final = "litellm[proxy]==1.106.2"
PORTKEY: Final = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # With the version that npm chooses every stream is a 500.
    "overrides": {"@hono/node-server": "1.11.1"},
}
_LITELLM: Final = FOLDER / "litellm" / "bin" / "litellm"
_PORTKEY: Final = FOLDER / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
_MASTER_KEY: Final = "sk-bench"
_STAMP: Final = "installed"
_INSTALL_S: Final = 600
_READY_S: Final = 120


@contextmanager
def running(upstream: str, *, wanted: bool = True) -> Iterator[list[Target]]:
    """Run those that are installed, if any are wanted, over the upstream of that base URL; yield them."""
    with ExitStack() as stack:
        targets: list[Target] = []
        if not wanted:
            yield targets
            return
        if _PORTKEY.exists() and shutil.which("node"):
            targets.append(stack.enter_context(_portkey(upstream)))
        if _LITELLM.exists():
            targets.append(stack.enter_context(_litellm(upstream)))
        yield targets


@contextmanager
def _portkey(upstream: str) -> Iterator[Target]:
    with _process(lambda port: ["node", str(_PORTKEY), f"--port={port}", "--headless"], "/") as (port, pid):
        headers = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": upstream,
            "Authorization": "Bearer sk-bench",
        }
        yield Target(
            name="portkey", base_url=f"http://127.0.0.1:{port}/v1", headers=headers, meter=Meter({"node": pid})
        )


@contextmanager
def _litellm(upstream: str) -> Iterator[Target]:
    config = FOLDER / "litellm.yaml"
    row = {
        "model_name": MODEL,
        "litellm_params": {"model": f"openai/{MODEL}", "api_base": upstream, "api_key": "sk-bench"},
    }
    told = {
        "model_list": [row],
        "general_settings": {"master_key": _MASTER_KEY},
        "litellm_settings": {"telemetry": False},
    }
    config.write_text(json.dumps(told))

    def line(port: int) -> Sequence[str]:
        address = ["--host", "127.0.0.1", "--port", str(port)]
        return [str(_LITELLM), "--config", str(config), *address, "--num_workers", "1"]

    more = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with _process(line, "/health/liveliness", more) as (port, pid):
        headers = {"Authorization": f"Bearer {_MASTER_KEY}"}
        yield Target(
            name="litellm", base_url=f"http://127.0.0.1:{port}/v1", headers=headers, meter=Meter({"litellm": pid})
        )


@contextmanager
def _process(
    line: Callable[[int], Sequence[str]], path: str, more: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Run a server until the block ends; yield its port and its process once it answers."""
    port = Ports().any()
    process = subprocess.Popen(
        line(port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(more or {})},
    )
    try:
        _await(process, f"http://127.0.0.1:{port}{path}")
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310  # what was started here
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{process.args!r} does not answer at {url}")


def install() -> None:
    """Install both in pinned versions, unless they are."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    python = FOLDER / "litellm" / "bin" / "python"
    if not _installed(FOLDER / "litellm", LITELLM):
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER / "litellm"], check=True, timeout=_INSTALL_S)
        uv = installer.uv(Path(sys.executable))
        pip = (
            [str(uv), "pip", "install", "--quiet", "--python", str(python)]
            if uv
            else [str(python), "-m", "pip", "-q", "install"]
        )
        environment = {**installer.environment(Path(sys.executable)), "UV_LINK_MODE": "hardlink"}
        subprocess.run([*pip, LITELLM], check=True, timeout=_INSTALL_S, env=environment)
        (FOLDER / "litellm" / _STAMP).write_text(LITELLM)
    wanted = json.dumps(PORTKEY)
    if not _installed(FOLDER / "portkey", wanted):
        if shutil.which("npm") is None:
            raise SystemExit("npm is not on this machine: Portkey is left out")
        shutil.rmtree(FOLDER / "portkey", ignore_errors=True)
        (FOLDER / "portkey").mkdir()
        (FOLDER / "portkey" / "package.json").write_text(wanted)
        line = ["npm", "install", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(line, check=True, timeout=_INSTALL_S, cwd=FOLDER / "portkey")
        (FOLDER / "portkey" / _STAMP).write_text(wanted)


def _installed(folder: Path, wanted: str) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text() == wanted


if __name__ == "__main__":
    install()
    print(f"LiteLLM and Portkey are in {FOLDER}; `make bench` measures them too")
