"""The whole task path as processes of their own: PostgreSQL, auth, a painter, the router, tasks, the edge.

Each can be killed with -9 and comes back by itself, as under a supervisor or in a cluster.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import requests

from deploy.local.database import Database
from deploy.local.ports import Ports
from deploy.local.readiness import await_grpc, await_http
from deploy.local.supervisor import Spec, Supervisor
from tests import forking, poolers, waiting

ROOT = Path(__file__).parents[2]
TOKEN = "a service token for the tests"
PEPPER = "a pepper for the tests"
CATALOGUE = """
providers:
  - {id: local-image, adapter: inference, makes: image}
  - {id: local-text, adapter: inference, makes: text}
models:
  - id: moa-tiny-image
    provider: local-image
    capabilities: [size, steps, seed, negative_prompt, edit, variation, preview, mask, quality, style, moderation,
                   background]
    load: {source: nowhere}
    credits: 0.5
    aliases: [google/gempix2, google/gemini-2.5-flash-image, gpt-image-1, dall-e-3, ideogram-v3,
              Stable-Diffusion-3-5-Large, imagen-3.0-generate-002, imagen-4.0-generate-preview-05-20,
              imagen-4.0-ultra-generate-exp-05-20]
  - id: moa-tiny-chat
    provider: local-text
    load: {source: nowhere}
"""


@functools.cache
def _first() -> Path:
    """Make a database with a first account and key, to be copied; return the folder, where `made.json` tells them."""
    folder = Path(tempfile.mkdtemp(prefix="moa-system-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    database = Database(folder / "pg", durable=False)
    database.start()
    try:
        url = database.create("moa")
        done = subprocess.run(
            [sys.executable, "-m", "services.auth", "bootstrap", "--json"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'gen'}:{ROOT}",
                "MOA_SERVICE_TOKEN": TOKEN,
                "MOA_KEY_PEPPER": PEPPER,
                "MOA_DATABASE_URL": url,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        database.stop()
    assert done.returncode == 0, done.stderr
    (folder / "made.json").write_text(done.stdout)
    return folder


class System:
    """Everything, running. Names of processes: auth, painter, router, tasks, worker, desk, edge.

    Args:
        root: Where state lies.
        environment: More settings, for every process.
        desk: Whether the desk service runs; its own settings come with `environment`.
    """

    def __init__(self, root: Path, *, environment: dict[str, str] | None = None, desk: bool = False) -> None:
        self.root = root
        self.database = Database(root / "pg", durable=False)
        self.gates = root / "gates"
        self.painted = root / "painted.log"
        self.objects = root / "objects"
        self._more = environment or {}
        self._ports = Ports()
        self._supervisor = Supervisor(ROOT, on_death=lambda name, code: None, start=forking.spawn)
        self._names = ["auth", "painter", "router", "tasks", "worker", *(["vision", "desk"] if desk else []), "edge"]
        self.port = {name: self._ports.any() for name in self._names}
        self._metrics = {name: self._ports.any() for name in self._names}
        self._more_ports = [self._ports.any() for _ in range(3)]
        self.api_key = ""
        self.account_id = ""

    @property
    def url(self) -> str:
        """The public address."""
        return f"http://127.0.0.1:{self.port['edge']}"

    @property
    def auth(self) -> dict[str, str]:
        """The header with the first key."""
        return {"authorization": f"Bearer {self.api_key}"}

    def __enter__(self) -> Self:
        for folder in (self.gates, self.objects, self.root / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.painted.touch()
        (self.root / "catalogue.yaml").write_text(CATALOGUE)
        # Not by shutil: the files belong to another user, where tests are run by root.
        subprocess.run(["cp", "-a", _first() / "pg", self.root], check=True)
        made = json.loads((_first() / "made.json").read_text())
        self.api_key, self.account_id = made["api_key"], made["account_id"]
        self.database.start()
        try:
            for name in self._names:
                self._start(name)
            for name in self._names:
                self.ready(name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._supervisor.stop(self._names[::-1], wait_s=5)
        self._supervisor.close()
        self.database.stop()

    def ready(self, name: str) -> None:
        """Return when a process serves."""
        until = time.monotonic() + 180
        if name == "edge":
            await_http(self._metrics[name], "/ready", until=until, alive=lambda: None)
        else:
            await_grpc(f"127.0.0.1:{self.port[name]}", until=until, alive=lambda: None)

    def kill(self, name: str) -> None:
        """Kill a process with -9; it comes back by itself. `postgres`: a crash, then a start."""
        if name == "postgres":
            self.database.kill()
            self.database.start()
        else:
            self._supervisor.kill(name)

    def pid(self, name: str) -> int:
        """Return a process's id."""
        found = self._supervisor.pid(name)
        assert found is not None
        return found

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.root / "logs" / f"{name}.log").read_text(errors="replace")

    def metrics(self, name: str) -> dict[str, float]:
        """Return what a process measured, by name and labels as Prometheus reads them."""
        shown = requests.get(f"http://127.0.0.1:{self._metrics[name]}/metrics", timeout=60).text
        lines = [line.rpartition(" ") for line in shown.splitlines() if not line.startswith("#")]
        return {sample: float(value) for sample, _, value in lines}

    def query(self, statement: str, *given: object) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with psycopg.connect(self.database.url("moa"), autocommit=True) as link:
            found = link.execute(statement, given)
            return found.fetchall() if found.description else []

    def post(self, path: str, body: object, **headers: str) -> requests.Response:
        """Post JSON with the first key."""
        return requests.post(self.url + path, json=body, headers={**self.auth, **headers}, timeout=90)

    def get(self, path: str, **headers: str) -> requests.Response:
        """Get with the first key."""
        return requests.get(self.url + path, headers={**self.auth, **headers}, timeout=90)

    def account(self, *, micro_credits: int = 10**9, **columns: object) -> tuple[str, str]:
        """Make another account that may do everything, with credits; give its id and its key."""
        script = (
            "import asyncio, sys, json\n"
            "from services.auth.adapters.accounts import Accounts\n"
            "from services.auth.adapters.keys import Keys\n"
            "from services.auth.adapters.postgres import Postgres\n"
            "from services.auth.domain import keys\n"
            "from services.auth.domain.accounts import EVERYTHING, CEILINGS\n"
            "async def main():\n"
            "    p = Postgres(sys.argv[1], size=1, wait_s=20); await p.open()\n"
            "    a = Accounts(p)\n"
            "    i = await a.create(role='user', limits=CEILINGS, rules=[EVERYTHING])\n"
            "    k = keys.make(sys.argv[2].encode())\n"
            "    await Keys(p).create(i, k, manages=frozenset({'account'}))\n"
            "    await a.add_credits(i, int(sys.argv[3]), reference='test:' + i, actor='test')\n"
            "    await p.close()\n"
            "    print(json.dumps([i, k.secret]))\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, self.database.url("moa"), PEPPER, str(micro_credits)],
            cwd=ROOT,
            env=self._environment("auth"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        account_id, key = json.loads(done.stdout)
        for column, value in columns.items():
            self.query(f"update accounts set {column} = %s where id = %s", value, account_id)
        return account_id, key

    def paintings(self, what: str, prompt: str) -> int:
        """Count the painter's calls for a prompt: `begin`, `end`, `cancelled`."""
        return sum(line[0] == what and line[2] == prompt for line in self.painted_lines())

    def painted_lines(self) -> list[list[str]]:
        """Return what the painter was called for: what happened, the request's id, the prompt."""
        whole, _, _ = self.painted.read_text().rpartition("\n")  # the last line may be half written
        return [line.split("\t") for line in whole.splitlines()]

    def _start(self, name: str) -> None:
        module = {
            "painter": "tests.emulators.painter",
            "vision": "tests.emulators.vision",
            "edge": "gateway",
            "worker": "services.tasks",
        }
        spec = Spec(
            name=name,
            module=module.get(name, f"services.{name}"),
            environment=self._environment(name),
            log=self.root / "logs" / f"{name}.log",
        )
        self._supervisor.start(spec)

    def _environment(self, name: str) -> dict[str, str]:
        at = {known: f"127.0.0.1:{port}" for known, port in self.port.items()}
        shared, own = poolers.urls(self.database.url("moa"))
        found = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'gen'}:{ROOT}",
            "MOA_SERVICE_TOKEN": TOKEN,
            "MOA_KEY_PEPPER": PEPPER,
            "MOA_SIGNUP": "open",
            # A busy machine is no database that is away.
            "MOA_DATABASE_WAIT_S": "20",
            "MOA_LISTEN": at[name],
            "MOA_PUBLIC_LISTEN": f"127.0.0.1:{self._more_ports[0]}",
            "MOA_ACCOUNT_ADDRESSES": f"127.0.0.1:{self._more_ports[0]}",
            "MOA_INTERNAL_LISTEN": f"127.0.0.1:{self._metrics[name]}",
            "MOA_DATABASE_URL": shared,
            **({"MOA_DATABASE_SESSION_URL": own} if own else {}),
            "MOA_CATALOGUE": str(self.root / "catalogue.yaml"),
            "MOA_AUTH_ADDRESS": at["auth"],
            "MOA_INFERENCE_ADDRESS": at["painter"],
            "MOA_TEXT_ADDRESS": at["painter"],
            "MOA_ROUTER_ADDRESS": at["router"],
            "MOA_ROUTER_ADDRESSES": at["router"],
            "MOA_TASKS_ADDRESSES": at["tasks"],
            "MOA_VISION_ADDRESS": at.get("vision", "127.0.0.1:1"),
            "MOA_DESK_ADDRESS": at.get("desk", "127.0.0.1:1"),
            "MOA_STORE_DIR": str(self.objects),
            "MOA_STATE_DIR": str(self.root / "state"),
            "MOA_EDGE_DIR": str(self.root / "edge"),
            "MOA_PUBLIC_URL": self.url,
            "MOA_TASK_LEASE_S": "2",
            "MOA_TASK_RETRY_S": "0.2",
            "MOA_DRAIN_S": "1",
            "PAINTER_LOG": str(self.painted),
            "PAINTER_GATES": str(self.gates),
            **self._more,
        }
        if name != "edge":
            found["MOA_METRICS_PORT"] = str(self._metrics[name])
        if name == "tasks":
            # This one answers; the one named `worker` works.
            found["MOA_TASK_WORKERS"] = "0"
        return found


def until(true: Callable[[], Any], *, what: str, wait_s: float = 180.0) -> Any:
    """Wait until something is true, and give it."""
    end = time.monotonic() + wait_s
    pauses = waiting.pauses()
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not within {wait_s:g} s"
        time.sleep(next(pauses))
    return found
