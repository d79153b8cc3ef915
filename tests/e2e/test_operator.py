"""What whoever runs a gateway sees of trouble with a provider, and of a mistake in the catalogue."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from deploy.local.stack import Stack, StackError
from tests import stacks
from tests.emulators.openai import OpenAIEmulator

SECRET = "sk-operators-own-key-0123456789"
CATALOGUE = """\
providers:
- {{id: openai-text, adapter: openai, makes: text, base_url: "{url}", credentials: {{api_key: OPENAI_API_KEY}}}}
models:
- {{id: gpt-4o-mini, provider: openai-text}}
"""


def awaited(found: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + 60
    while not found():
        assert time.monotonic() < until
        time.sleep(0.05)


async def test_trouble_is_seen_on_the_terminal(tmp_path: Path) -> None:
    """Of a refused key the caller hears which provider, the operator why, once; of a refused edit everything."""
    async with OpenAIEmulator() as provider:
        await asyncio.to_thread(_seen, tmp_path, CATALOGUE.format(url=provider.base_url))


def _seen(folder: Path, catalogue: str) -> None:
    path, told = folder / "catalogue.yaml", list[str]()
    path.write_text(catalogue)
    root = folder / "home"
    stacks.begun(root)
    environment = {**stacks.QUICK, "MOA_CATALOGUE": str(path), "OPENAI_API_KEY": SECRET}
    processes = ("auth", "text", "router", "edge")
    with Stack(root, durable=False, environment=environment, processes=processes, tell=told.append) as stack:
        asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
        key = {"authorization": f"Bearer {stack.api_key}"}
        for _ in range(2):
            answer = requests.post(f"{stack.url}/v1/chat/completions", json=asked, headers=key, timeout=60)
            assert answer.status_code == 502
            said = answer.json()["error"]["message"]
            assert said == "the provider openai-text refused the gateway's credentials"
        awaited(lambda: any("refuses" in line for line in told))
        (line,) = [line for line in told if "refuses" in line]
        assert line.startswith(
            "warning: the provider openai-text refuses the gateway's credentials"
            " (HTTP 401, model gpt-4o-mini, account acc_"
        )
        assert line.endswith("): Incorrect API key provided: ****.")
        assert SECRET not in "".join(log.read_text() for log in (root / "logs").iterdir())
        metrics = requests.get(f"{stack.internal_url}/metrics/text", timeout=20).text
        assert 'moa_upstream_account_refused_total{provider="openai-text",why="credentials"} 2.0' in metrics
        _is_described(stack.url, key)

        def ready() -> dict[str, object]:
            found: dict[str, object] = requests.get(f"{stack.internal_url}/ready", timeout=20).json()
            return found

        others = {"facts_refused": False, "facts_fault": "", "journal_failed": False, "journal_fault": ""}
        missing = ["image", "inference"]  # of those that this gateway does not run
        assert ready() == {
            "status": "ready",
            "catalogue_refused": False,
            "catalogue_fault": "",
            "missing": missing,
            **others,
        }
        path.write_text(catalogue.replace("base_url", "base_ulr"))
        fault = f"{path}: provider openai-text: Object contains unknown field `base_ulr`; did you mean 'base_url'?"
        awaited(lambda: ready()["catalogue_fault"] == fault)
        awaited(lambda: any(line.endswith(f"is kept: {fault}") for line in told))
        assert "moa_catalogue_refused 1.0" in requests.get(f"{stack.internal_url}/metrics/router", timeout=20).text
        assert requests.get(f"{stack.url}/v1/models", headers=key, timeout=20).json()["data"]
        _reload_is_refused(stack, f"bad setting MOA_CATALOGUE: {fault}")
        _killed(stack, "router", "text")
        awaited(lambda: any(f"is kept: {fault} (in use since this start: the copy" in line for line in told))
        assert requests.get(f"{stack.url}/v1/models", headers=key, timeout=20).json()["data"]
        assert ready()["catalogue_refused"]
        answer = requests.post(f"{stack.url}/v1/chat/completions", json=asked, headers=key, timeout=60)
        assert answer.json()["error"]["message"] == said
        path.write_text(catalogue)
        awaited(lambda: not ready()["catalogue_refused"])
        awaited(lambda: told[-1] == "the catalogue was read anew: 1 models")
        policies = folder / "policies.yaml"
        policies.write_text("policies: [{name: one, kind: deny-lits}]")
        fault = f"bad setting MOA_POLICIES: {policies}: one: unknown kind 'deny-lits'; there are cap, deny-list"
        _reload_is_refused(stack, fault, MOA_POLICIES=str(policies))


def _is_described(url: str, key: dict[str, str]) -> None:
    """The provider's troubles are told over REST, and a key that is set there does not win over the environment's."""
    (row,) = requests.get(f"{url}/admin/providers?span=SPAN_DAY", headers=key, timeout=20).json()["providers"]
    assert (row["provider_id"], row["configured"], row["key_source"]) == ("openai-text", True, "KEY_SOURCE_ENVIRONMENT")
    assert int(row["traffic"]["errors"]) >= 1
    body = {"credentials": [{"name": "api_key", "value": "sk-stored-0123456789abcd"}]}
    answer = requests.put(f"{url}/admin/providers/openai-text/key", json=body, headers=key, timeout=20)
    assert [(each["variable"], each["last_four"]) for each in answer.json()["keys"]] == [("OPENAI_API_KEY", "abcd")]
    tested = requests.post(f"{url}/admin/providers/openai-text:test", headers=key, timeout=40).json()
    assert (tested["outcome"], tested["detail"]) == (
        "TEST_OUTCOME_FAILED",
        "the provider openai-text refused the gateway's credentials",
    )
    (row,) = requests.get(f"{url}/admin/providers", headers=key, timeout=20).json()["providers"]
    assert (row["key_source"], row["stored_keys"][0]["last_four"]) == ("KEY_SOURCE_ENVIRONMENT", "abcd")
    assert requests.delete(f"{url}/admin/providers/openai-text/key", headers=key, timeout=20).json() == {}
    assert requests.get(f"{url}/admin/providers", timeout=20).status_code == 401
    assert requests.get(f"{url}/admin/routes", headers=key, timeout=20).json() == {"routes": []}
    assert requests.get(f"{url}/admin/inference", headers=key, timeout=20).json()["pools"][0]["pool"] == ""
    shown = requests.get(f"{url}/admin/catalogue", headers=key, timeout=20).json()
    assert ([row["model"] for row in shown["rows"]], shown["editable"]) == (["openai-text/gpt-4o-mini"], True)
    text = shown["text"] + "- {id: gpt-4o, provider: openai-text}\n" + "#" * 100_000
    preview = requests.post(f"{url}/admin/catalogue:preview", json={"text": text}, headers=key, timeout=60).json()
    assert [(each["kind"], each["name"]) for each in preview["changes"]] == [
        ("CHANGE_KIND_ADDED", "openai-text/gpt-4o")
    ]


def _killed(stack: Stack, *names: str) -> None:
    """Kill processes; return when others serve in their places."""
    for name in names:
        pid = stack.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        awaited(lambda name=name, pid=pid: stack.pid(name) not in (None, pid))  # type: ignore[misc]
        stack.await_ready(name)


def _reload_is_refused(stack: Stack, fault: str, **environment: str) -> None:
    """A reload with a bad file stops no process: what the gateway would not take while it runs does not end it."""
    before = {name: stack.pid(name) for name in stack.names}
    with pytest.raises(StackError) as refused:
        stack.reload(environment)
    assert str(refused.value) == fault
    assert {name: stack.pid(name) for name in stack.names} == before
