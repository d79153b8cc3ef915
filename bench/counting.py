"""Measure chats beside accounts that have texts of 8 MB counted, one after another: `python -m bench.counting`.

Once of a model whose context such a text might fit, so that it is tokenized, and once of one that it cannot fit.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from deploy.local.stack import REPOSITORY, Stack
from tests import stacks

_CHATS = 10
_ROUNDS = 4
_COUNTING = 4
_BYTES = 8 * 1024 * 1024
_WORDS = "The quick brown fox jumps over the lazy dog, and it is 12 o'clock. "
_CONTEXT = 200_000
_PROCESSES = ("auth", "inference", "router", "edge")


def main() -> None:
    """Print the time of whole chats, alone and beside the counts."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
        environment = {"MOA_CATALOGUE": str(_catalogue(Path(folder)))}
        with stacks.gateway(Path(folder) / "state", environment=environment, processes=_PROCESSES) as stack:
            other = _account(stack)
            for model in ("wide", "narrow"):
                _chats_ms(stack, 5)
                quiet: list[float] = []
                beside: list[float] = []
                answered: list[int] = []
                # In turns, because the machine may be shared.
                for _ in range(_ROUNDS):
                    quiet += _chats_ms(stack, _CHATS)
                    with _counts(stack, other, model) as done:
                        beside += _chats_ms(stack, _CHATS)
                        answered += done
                told = f"{model}: quiet {_told(quiet)}; beside {_COUNTING} counts of 8 MB {_told(beside)}"
                ratio = f"p50 {statistics.median(beside) / statistics.median(quiet):.2f}"
                ratio += f", p95 {_p95(beside) / _p95(quiet):.2f}"
                print(f"{told}: {ratio}; counts answered meanwhile: {Counter(answered)}", flush=True)


def _catalogue(folder: Path) -> Path:
    """Write a catalogue with the small model as it is, and with a context that 8 MB of text might fit."""
    shipped = REPOSITORY / "inference" / "models" / "moa-tiny-chat"
    wide = folder / "wide"
    shutil.copytree(shipped, wide)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"max_position_embeddings": _CONTEXT}))
    rows = [
        {"id": "narrow", "provider": "local-text", "default_max_tokens": 24, "load": {"source": str(shipped)}},
        {"id": "wide", "provider": "local-text", "default_max_tokens": 24, "load": {"source": str(wide)}},
    ]
    rows[0]["context_tokens"], rows[1]["context_tokens"] = 512, _CONTEXT
    file = folder / "catalogue.json"
    providers = [{"id": "local-text", "adapter": "inference", "makes": "text"}]
    file.write_text(json.dumps({"providers": providers, "models": rows}))
    return file


def _account(stack: Stack) -> str:
    """Make an account that may use every model; return its key."""
    headers = {"X-API-Key": stack.api_key}
    made = requests.post(
        f"{stack.url}/admin/accounts",
        json={"role": "ROLE_SERVICE", "unlimited": True, "with_key": True},
        headers=headers,
        timeout=60,
    )
    made.raise_for_status()
    return str(made.json()["api_key"])


def _chats_ms(stack: Stack, count: int) -> list[float]:
    body = {"model": "wide", "max_tokens": 24, "messages": [{"role": "user", "content": "Tell me a story."}]}
    taken = []
    with requests.Session() as session:
        session.headers["X-API-Key"] = stack.api_key
        for _ in range(count):
            began = time.perf_counter()
            answer = session.post(f"{stack.url}/v1/chat/completions", json=body, timeout=120)
            assert answer.status_code == 200, answer.text
            taken.append((time.perf_counter() - began) * 1000)
    return taken


@contextmanager
def _counts(stack: Stack, key: str, model: str) -> Iterator[list[int]]:
    """Have texts counted until the block ends; yield the statuses so far."""
    text = (_WORDS * (_BYTES // len(_WORDS) + 1))[:_BYTES]
    body = json.dumps({"contents": [{"parts": [{"text": text}]}]}).encode()
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    done: list[int] = []
    over = threading.Event()
    links = [http.client.HTTPConnection("127.0.0.1", stack.port, timeout=600) for _ in range(_COUNTING)]

    def count(link: http.client.HTTPConnection) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while not over.is_set():
                link.request("POST", f"/v1beta/models/{model}:countTokens", body, headers)
                answer = link.getresponse()
                answer.read()
                done.append(answer.status)

    threads = [threading.Thread(target=count, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        over.set()
        for link in links:
            with contextlib.suppress(OSError, AttributeError):
                link.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _p95(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=20)[-1]


def _told(taken: list[float]) -> str:
    return f"p50 {statistics.median(taken):.0f} ms, p95 {_p95(taken):.0f} ms"


if __name__ == "__main__":
    main()
