"""The one command that trains everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.training import __main__ as command
from inference.training import denoiser, language_model, lora, vision
from inference.training.denoiser import Effort

pytestmark = pytest.mark.timeout(600)  # it computes, on cores that may be shared


def test_all_goes_through_every_stage_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage works on what the stages before it have made, not on what ships."""
    said: list[tuple[str, Path | None]] = []

    def makes(name: str, of: int | None = None) -> Any:
        def make(*given: Any) -> Path:
            said.append((name, None if of is None else given[of]))
            return tmp_path / name

        return make

    monkeypatch.setattr(language_model, "train", makes("text"))
    monkeypatch.setattr(denoiser, "train", makes("image"))
    monkeypatch.setattr(lora, "train_all", makes("loras", of=0))
    monkeypatch.setattr(vision, "train", makes("vision"))
    scored: list[dict[str, Path]] = []
    monkeypatch.setattr(command, "evaluate", lambda _run, made, _count: scored.append(dict(made)))
    monkeypatch.setattr(command, "STAGES", [stage for stage in command.STAGES if stage != "gallery"])
    command.main(["all", "--out", str(tmp_path), "--quiet", "--threads", "1"])
    assert said == [("text", None), ("image", None), ("loras", tmp_path / "image"), ("vision", None)]
    assert scored == [{name: tmp_path / name for name in ("text", "image", "loras", "vision")}]


def test_a_stage_that_is_done_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command given again finds its checkpoint and takes no further step."""
    again = ["text", "--out", str(tmp_path), "--share", "0.001", "--threads", "1"]
    command.main(again)
    assert "step 1 " in capsys.readouterr().err
    before = (tmp_path / "moa-tiny-chat" / "model.safetensors").read_bytes()
    command.main(again)
    assert "step" not in capsys.readouterr().err
    assert (tmp_path / "moa-tiny-chat" / "model.safetensors").read_bytes() == before


def test_the_scores_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` leaves the scores of every model that ships in scores.json."""
    monkeypatch.setattr("inference.training.lora_scores.MIXES", ({"framed": 1, "moa": 1},))
    command.main(["evaluate", "--out", str(tmp_path), "--count", "1", "--quiet", "--threads", "1"])
    found = json.loads((tmp_path / "scores.json").read_text())
    assert list(found) == ["text", "held-out", "image", "loras", "vision"]
    assert found["loras"]["framed + moa"]["moa"] > 0.5
    assert found["vision"]["desk yes/no"] > 0.5


@pytest.mark.parametrize("there", [False, True])
def test_a_gpu_is_taken_where_there_is_one(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is CUDA with a GPU and the CPU without; a name is taken at its word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert command.device("auto").type == ("cuda" if there else "cpu")
    assert command.device("cpu").type == "cpu"


def test_a_share_of_the_recipe_is_at_least_one_of_each() -> None:
    """A share scales what is done, never to nothing; batches stay as large as they are."""
    whole, tenth, least = Effort(), Effort().part(0.1), Effort().part(1e-9)
    assert (tenth.steps, tenth.latents, tenth.batch) == (whole.steps // 10, whole.latents // 10, whole.batch)
    assert (least.steps, least.crops, least.captions) == (1, 1, 1)
