"""`python -m services.text check`, as a person runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.emulators import aws
from tests.emulators.bedrock import BedrockEmulator
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.openai import OpenAIEmulator
from tests.text.harness import Row, write_catalogue


async def _check(path: Path, environment: dict[str, str]) -> tuple[int | None, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.text",
        "check",
        env={**inherited, "PYTHONPATH": f"gen{os.pathsep}.", "MOA_CATALOGUE": str(path), **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


def _row(name: str, adapter: str, url: str, *, key: str = "", **more: object) -> Row:
    credentials = {"credentials": {"api_key": key}} if key else {}
    return {"id": name, "adapter": adapter, "makes": "text", "base_url": url, **credentials, **more}


async def test_each_configured_provider_is_tried(tmp_path: Path) -> None:
    """Good, wrong, unreachable and unset credentials are told apart, without the key itself; a failure is exit 1."""
    path = tmp_path / "catalogue.yaml"
    async with OpenAIEmulator() as one, GeminiEmulator() as two, BedrockEmulator() as three:
        signed = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
        rows = [
            _row("good", "openai", one.base_url, key="GOOD"),
            _row("google", "gemini", two.base_url, key="GOOGLE"),
            _row("amazon", "bedrock", three.url, credentials=signed, options={"region": aws.REGION}),
            _row("unset", "openai", one.base_url, key="NOWHERE"),
        ]
        bad = [_row("wrong", "openai", one.base_url, key="WRONG"), _row("gone", "openai", "http://127.0.0.1:1/v1")]
        environment = {
            "GOOD": "sk-good",
            "GOOGLE": "AIza-good",
            "WRONG": "sk-a-secret",
            "AWS_ACCESS_KEY_ID": aws.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY,
        }
        write_catalogue(path, rows, [])
        code, out = await _check(path, environment)
        assert code == 0
        assert [line.split()[:2] for line in out.splitlines()] == [
            ["ok", "good"],
            ["ok", "google"],
            ["ok", "amazon"],
            ["hidden", "unset"],
        ]
        write_catalogue(path, bad, [])
        code, out = await _check(path, environment)
    assert code == 1
    assert [line.split()[:2] for line in out.splitlines()] == [["FAILED", "wrong"], ["FAILED", "gone"]]
    assert "sk-a-secret" not in out
