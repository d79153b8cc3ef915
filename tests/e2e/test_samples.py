"""The code samples of the documented native API, as printed there but for host, key, provider and model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gateway import bindings, routes
from gateway.settings import EdgeSettings
from tests.e2e.conftest import Gateway

SAMPLES = Path(__file__).parent / "samples"
SWAPS = {
    "https://api.soonsoon.ai": "{url}",
    "YOUR_API_KEY": "{key}",
    "your_api_key_here": "{key}",
    "gemini-2.0-flash-lite": "moa-tiny-chat",
    "gemini-2.5-flash-image-preview": "moa-tiny-image",
    "gemini-text": "local-text",
    "gemini-image": "local-image",
}

# A browser's file input, as far as the page uses one. Node has fetch and Blob but no FileReader and no DOM.
PAGE = """
const fs = require('node:fs');
class FileReader {
  readAsDataURL(file) {
    file.arrayBuffer().then((bytes) => {
      this.result = `data:${file.type};base64,` + Buffer.from(bytes).toString('base64');
      this.onload();
    });
  }
}
const file = new Blob([fs.readFileSync('my_photo.jpg')], { type: 'image/jpeg' });
const document = { getElementById: () => ({ files: [file] }) };
%s
uploadAndEdit();
"""


def written(gateway: Gateway, name: str, folder: Path) -> Path:
    """Write a sample with host, key and names swapped, and a photograph beside it."""
    text = (SAMPLES / name).read_text()
    for printed, ours in SWAPS.items():
        text = text.replace(printed, ours.format(url=gateway.url, key=gateway.key))
    if name.endswith(".html"):
        found = re.search(r"<script>(.*)</script>", text, re.DOTALL)
        assert found
        text, name = PAGE % found[1], "upload.cjs"
    Image.effect_noise((96, 80), 60).convert("RGB").save(folder / "my_photo.jpg")
    (folder / name).write_text(text)
    return folder / name


def ran(path: Path, *command: str) -> str:
    """Run a sample in its folder; give what it printed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine")
    run = subprocess.run(
        [*command, path.name], cwd=path.parent, env=os.environ, capture_output=True, text=True, timeout=90, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_shell_quickstart(gateway: Gateway, tmp_path: Path) -> None:
    """Two curl calls answer with a response and with an image."""
    out = ran(written(gateway, "quickstart.sh", tmp_path), "bash")
    text, end = json.JSONDecoder().raw_decode(out)
    picture = json.loads(out[end:])
    assert text["response"]
    assert text["usageMetadata"]["totalTokenCount"] > 0
    assert picture["status"] == "success"


def test_the_python_quickstart(gateway: Gateway, tmp_path: Path) -> None:
    """It prints an answer and counts one image."""
    out = ran(written(gateway, "quickstart.py", tmp_path), sys.executable)
    assert "usageMetadata" in out
    assert "이미지 생성 성공: 1개" in out


def test_the_complete_python_example(gateway: Gateway, tmp_path: Path) -> None:
    """It lists providers, answers, and saves a picture that opens."""
    out = ran(written(gateway, "complete.py", tmp_path), sys.executable)
    assert "local-text" in out
    with Image.open(tmp_path / "generated_image.jpg") as picture:
        assert picture.size == (128, 128)


def test_the_javascript_quickstart(gateway: Gateway, tmp_path: Path) -> None:
    """fetch from JavaScript reads an answer and counts one image."""
    out = ran(written(gateway, "quickstart.js", tmp_path), "node")
    assert "usageMetadata" in out
    assert "이미지 생성 성공: 1개" in out


def test_the_upload_page(gateway: Gateway, tmp_path: Path) -> None:
    """The page's script sends a chosen file and reads the edited image."""
    out = ran(written(gateway, "upload.html", tmp_path), "node")
    assert "편집 결과" in out
    assert "status: 'success'" in out


def test_the_python_edit(gateway: Gateway, tmp_path: Path) -> None:
    """It edits a photograph and saves the result."""
    out = ran(written(gateway, "edit.py", tmp_path), sys.executable)
    assert "edited_photo.jpg" in out
    with Image.open(tmp_path / "edited_photo.jpg") as picture:
        assert picture.size[0] > 0


def test_the_shell_edit(gateway: Gateway, tmp_path: Path) -> None:
    """GNU base64 wraps its lines inside the JSON string, and the answer is still an image."""
    ran(written(gateway, "edit.sh", tmp_path), "bash")
    assert json.loads((tmp_path / "response.json").read_text())["status"] == "success"


def commands(page: str) -> list[str]:
    """Return the commands of a page that ask a running gateway."""
    blocks = re.findall(r"```sh\n(.*?)```", Path(page).read_text(encoding="utf-8"), re.DOTALL)
    found = [command.strip() for block in blocks for command in block.split("\n\n")]
    return [command for command in found if command.startswith("curl ")]


@pytest.mark.parametrize("page", ["README.md", "docs/dialects.md"])
def test_the_commands_of_a_page_run(gateway: Gateway, tmp_path: Path, page: str) -> None:
    """As they are printed, with the address and key of `make run`'s file; weights that are fetched apart."""
    asked = [command for command in commands(page) if "all-minilm" not in command]
    assert asked
    environment = {**os.environ, "MOA_URL": gateway.url, "MOA_API_KEY": gateway.key}
    for command in asked:
        strict = "set -eo pipefail; " + re.sub(r"^curl ", "curl -fsS --max-time 60 ", command)
        done = subprocess.run(
            ["bash", "-c", strict],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}{done.stdout}"


def test_every_path_of_the_tasks_dialects_is_described() -> None:
    """The page of dialects names all that predictions, tasks and desks are asked by."""
    text = Path("docs/dialects.md").read_text(encoding="utf-8")
    served = {
        binding.template
        for binding in bindings.read(EdgeSettings().descriptors)
        if routes.DIALECTS.get(binding.service) in ("predictions", "task", "task_query", "desk")
    }
    plain = {
        path.replace("{model_path=**}", "{owner}/{name}").replace("prediction_id", "id").replace("file_id", "id")
        for path in served
    }
    missing = sorted(path for path in plain if path not in text.replace("{task_id}", "{id}"))
    assert missing == []
