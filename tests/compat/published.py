"""Run the API tests that a vendor publishes with its client against a gateway over strict fakes: `make vendor-tests`.

The tests are those of the source package of the client that this environment has. They are fetched, not kept; each
asks one method with few or with all parameters, and holds the answer to the client's types. What this gateway does not
serve, or refuses on purpose, is listed here with the reason: it must fail, and everything else must pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from deploy.local.stack import REPOSITORY, Stack
from tests import shipped, stacks
from tests.emulators.base import Emulator
from tests.emulators.embeddings import OpenAIEmbeddings
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.image.harness import shipped_rows

CLIENT: Final = "openai"
FILES: Final = ("chat/test_completions.py", "test_embeddings.py", "test_images.py", "test_models.py")
"""Of its tests, those of paths that are served."""
NAMES: Final = {"gpt-4o-mini": ["gpt-6-astra"], "gpt-image-1": ["gpt-image-1.5"]}
"""How the tests call models, as names of rows that the fakes know."""
REFUSED: Final[Mapping[str, str]] = {
    r"test_completions.*(method|response)_(retrieve|update|list|delete)": "refused: answers are not kept here",
    r"test_completions.*create_with_all_params": "refused: biases of words, no tokens, audio and a web search in one",
    r"test_embeddings.*response_create\[(strict|aiohttp)|test_embeddings.*method_create\[(strict|aiohttp)": (
        "failed: the client asks for base64 and its strict type has numbers alone"
    ),
    r"test_images.*(edit|variation)": "refused: the image is the text 'Example data'",
    r"test_images.*generate_with_all_params": "refused: moving pictures and drawings of lines, which no model makes",
    r"test_models.*(method|response)_delete": "refused: models are the operator's",
}
"""Tests that must fail, by a pattern of their names, each with the reason."""

_FOLDER: Final = REPOSITORY / "build" / "published"
_PLUGIN: Final = "tests_key"
_LIMIT_S: Final = 420


def fetched(package: str) -> Path:
    """Return the folder of a client's source package, in the version that is installed here."""
    folder = _FOLDER / f"{package}-{version(package)}"
    if not folder.is_dir():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
        subprocess.run([*pip, f"{package}=={version(package)}", "--dest", str(_FOLDER)], check=True, timeout=_LIMIT_S)
        with tarfile.open(f"{folder}.tar.gz") as archive:
            archive.extractall(_FOLDER, filter="data")
    return folder


@contextlib.asynccontextmanager
async def gateway(root: Path) -> AsyncIterator[Stack]:
    """Yield a running gateway with OpenAI's rows, over fakes of OpenAI."""
    hosts: dict[str, Emulator] = {
        "openai-text": OpenAIEmulator(),
        "openai-embedding": OpenAIEmbeddings(),
        "openai-image": OpenAIImagesEmulator(),
    }
    async with contextlib.AsyncExitStack() as running:
        providers, models = [], []
        for name, host in hosts.items():
            await running.enter_async_context(host)
            own, rows = shipped_rows(name, f"{host.url}/v1")
            providers += own
            models += rows
        for row in models:
            row["aliases"] = [*row.get("aliases", ()), *NAMES.get(row["id"], ())]
        root.mkdir(parents=True, exist_ok=True)
        catalogue = root / "catalogue.yaml"
        shipped.written(catalogue, providers, models)
        environment = {"OPENAI_API_KEY": "sk-good", "MOA_CATALOGUE": str(catalogue), **stacks.QUICK}
        processes = ("auth", "text", "image", "tasks", "router", "edge")
        stack = Stack(root / "state", durable=False, environment=environment, processes=processes)
        await asyncio.to_thread(stack.start)
        try:
            yield stack
        finally:
            await asyncio.to_thread(stack.stop)


def asked(source: Path, root: Path, stack: Stack, arguments: Sequence[str]) -> dict[str, str]:
    """Run the tests; return why each failed, by name; empty where it passed."""
    # The tests know one key, which no gateway has.
    (root / f"{_PLUGIN}.py").write_text(
        "import os, sys\n"
        "def pytest_collection_finish(session):\n"
        "    sys.modules['tests.conftest'].api_key = os.environ['MOA_API_KEY']\n"
    )
    report = root / "report.xml"
    environment = {
        **os.environ,
        "TEST_API_BASE_URL": f"{stack.url}/v1",
        "MOA_API_KEY": stack.api_key,
        "PYTHONPATH": f"{root}{os.pathsep}{source / 'src'}",
    }
    line = [sys.executable, "-m", "pytest", "-q", "-p", _PLUGIN, "-p", "no:cacheprovider", "-n", "0"]
    files = [f"tests/api_resources/{name}" for name in FILES]
    subprocess.run(
        [*line, "--timeout", "60", f"--junitxml={report}", *files, *arguments],
        cwd=source,
        env=environment,
        check=False,
        timeout=_LIMIT_S,
    )
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failure = next((child for child in case if child.tag in ("failure", "error")), None)
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.api_resources.")
        found[name] = "" if failure is None else (failure.get("message") or "failed").splitlines()[0]
    return found


async def main(arguments: Sequence[str]) -> int:
    """Run all; print what failed against what must. Return 0 where both are the same."""
    source = fetched(CLIENT)
    with tempfile.TemporaryDirectory(prefix="moa-published-") as folder:
        async with gateway(Path(folder) / "gateway") as stack:
            found = await asyncio.to_thread(asked, source, Path(folder), stack, arguments)
    wrong = []
    counted: Counter[str] = Counter()
    for name, why in found.items():
        reason = next((reason for part, reason in REFUSED.items() if re.search(part, name)), "")
        counted[reason or "passed"] += 1
        if bool(why) != bool(reason):
            wrong.append(f"{name}: {why or f'passed, and is listed: {reason}'}")
    print(f"\n{CLIENT} {version(CLIENT)}, {len(found)} of its own tests of the paths that are served:")
    print("\n".join(f"  {count:4} {what}" for what, count in counted.most_common()))
    print("\n".join(["", "Otherwise than listed:", *wrong] if wrong else ["", "All as listed."]))
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
