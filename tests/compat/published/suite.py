"""What a vendor publishes with its client, and how it is run against a gateway over fakes of the vendor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from deploy.local.stack import REPOSITORY, Stack
from tests import shipped, stacks
from tests.compat import environments
from tests.emulators.base import Emulator
from tests.image.harness import shipped_rows

_FOLDER: Final = REPOSITORY / "build" / "published"
_PLUGIN: Final = "tests_plugin"
_LIMIT_S: Final = 1800


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The published tests of one client."""

    client: str
    """Its package."""
    lock: str = ""
    """The environment that its tests need, in `tests/compat/locks`; empty: this one has all."""
    under: str
    """Where in the source package its tests lie."""
    files: Sequence[str]
    """Of its tests, those of paths that are served."""
    path: str = "."
    """Where in the source package the client lies."""
    hosts: Callable[[], Mapping[str, tuple[Emulator, str]]]
    """Make the fakes of the vendor, by provider, each with its path."""
    names: Mapping[str, Sequence[str]]
    """How the tests call models, as names of rows that the fakes know."""
    credentials: Mapping[str, str]
    """What the gateway knows of the vendor."""
    plugin: str
    """What lets the tests ask the gateway, with its key."""
    environment: Callable[[Stack], Mapping[str, str]]
    """Tell the tests of the gateway."""
    options: Sequence[str] = ()
    """For pytest."""
    prepare: Callable[[Path], None] = lambda _: None
    """Make what the tests need and the source package does not hold, given its folder."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Tests that must fail, by a pattern of their names, each with the reason."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Tests that say nothing of a gateway, likewise: they may fare as they will."""

    @property
    def version(self) -> str:
        """The client's version, as it is installed for its tests."""
        return environments.version(self.lock, self.client) if self.lock else version(self.client)

    def fetched(self) -> Path:
        """Return the folder of the client's source package."""
        name = f"{self.client.replace('-', '_')}-{self.version}"
        folder = _FOLDER / name
        if not folder.is_dir():
            _FOLDER.mkdir(parents=True, exist_ok=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", self.client]
            asked = f"{self.client}=={self.version}"
            subprocess.run([*pip, asked, "--dest", str(_FOLDER)], check=True, timeout=_LIMIT_S)
            # tarfile has its filter since Python 3.11.4; the program lets nothing out of the folder either.
            subprocess.run(["tar", "-xzf", f"{folder}.tar.gz", "-C", str(_FOLDER)], check=True)
        self.prepare(folder)
        return folder

    @contextlib.asynccontextmanager
    async def gateway(self, root: Path) -> AsyncIterator[Stack]:
        """Yield a running gateway with the vendor's rows, over its fakes."""
        async with contextlib.AsyncExitStack() as running:
            providers: list[dict[str, Any]] = []
            models: list[dict[str, Any]] = []
            for name, (host, path) in self.hosts().items():
                await running.enter_async_context(host)
                own, rows = shipped_rows(name, f"{host.url}{path}")
                providers += own
                models += rows
            for row in models:
                row["aliases"] = [*row.get("aliases", ()), *self.names.get(row["id"], ())]
            root.mkdir(parents=True, exist_ok=True)
            catalogue = root / "catalogue.yaml"
            shipped.written(catalogue, providers, models)
            environment = {**self.credentials, "MOA_CATALOGUE": str(catalogue), **stacks.QUICK}
            processes = ("auth", "text", "image", "tasks", "router", "edge")
            stack = Stack(root / "state", durable=False, environment=environment, processes=processes)
            await asyncio.to_thread(stack.start, wait_s=300)
            try:
                yield stack
            finally:
                await asyncio.to_thread(stack.stop)

    def asked(self, source: Path, root: Path, stack: Stack, arguments: Sequence[str]) -> dict[str, str]:
        """Run the tests; return why each failed, by name; empty where it passed. Skipped ones are left out."""
        (root / f"{_PLUGIN}.py").write_text(self.plugin)
        report = root / "report.xml"
        environment = {
            **os.environ,
            "MOA_API_KEY": stack.api_key,
            **self.environment(stack),
            "PYTHONPATH": f"{root}{os.pathsep}{source / self.path}",
        }
        python = environments.python(self.lock) if self.lock else sys.executable
        line = [str(python), "-m", "pytest", "-q", "-p", _PLUGIN, "-p", "no:cacheprovider"]
        files = [f"{self.under}/{name}" for name in self.files]
        subprocess.run(
            [*line, "--timeout", "60", *self.options, f"--junitxml={report}", *files, *arguments],
            cwd=source,
            env=environment,
            check=False,
            timeout=_LIMIT_S,
        )
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("skipped") is not None:
                continue
            failure = next((child for child in case if child.tag in ("failure", "error")), None)
            name = f"{case.get('classname')}.{case.get('name')}".removeprefix(f"{self.under.replace('/', '.')}.")
            found[name] = "" if failure is None else (failure.get("message") or "failed").splitlines()[0]
        return found
