"""aider: it is asked to change a file, and the file is read."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import rig

ASKED = ("--edit-format", "whole", "--message", "Greet the world.", "hello.py")


def edited(question, *options: str) -> str:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = Path(folder, "hello.py")
        file.write_text("print('hello')\n")
        program = Path(sys.executable).with_name("aider")
        quiet = ["--no-git", "--yes-always", "--no-check-update", "--no-show-release-notes", "--analytics-disable"]
        quiet += ["--no-pretty", "--no-detect-urls", "--no-show-model-warnings", "--no-gitignore"]
        reach = ["--openai-api-base", question.url + "/v1", "--openai-api-key", question.key]
        done = subprocess.run(
            [program, "--model", f"openai/{question.model}", *reach, *quiet, *options, *ASKED],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout[-3000:], done.stderr[-3000:])
        if "429" in done.stdout or "RateLimit" in done.stdout:
            raise RuntimeError("429")
        return file.read_text()


def edit(question) -> str:
    return edited(question, "--no-stream")


def edit_stream(question) -> str:
    return edited(question, "--stream", "--reasoning-effort", "medium", "--no-check-model-accepts-settings")


rig.serve(edit=edit, edit_stream=edit_stream)
