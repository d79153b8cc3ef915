"""Number formats of text models on torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference import machine
from services.catalogue import Load, Model
from services.common.errors import ModelMisconfigured
from tests.inference.gguf_file import SHIPPED


def row(**fields: Any) -> Model:
    return Model(id="m", provider="p", load=Load(source=str(SHIPPED.resolve()), **fields))


@pytest.mark.parametrize(
    ("wanted", "stored", "native", "used"),
    [
        ("auto", "bfloat16", True, "bfloat16"),
        ("auto", "bfloat16", False, "float32"),
        ("auto", "float16", True, "float32"),
        ("auto", None, True, "float32"),
        ("float32", "bfloat16", True, "float32"),
        ("bfloat16", "float32", False, "bfloat16"),
        ("int8", "float32", True, "bfloat16"),
    ],
)
def test_a_cpu_computes_in_what_it_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, stored: str | None, native: bool, used: str
) -> None:
    """bfloat16 is chosen only where the CPU computes it and the weights are stored so; what a row says is kept."""
    machine.bring_up(1)
    from inference.text import model

    monkeypatch.setattr(machine, "computes_bfloat16", lambda: native)
    assert str(model.computing_dtype(row(dtype=wanted), "cpu", SimpleNamespace(dtype=stored))) == f"torch.{used}"


def test_int8_is_refused_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bfloat16, a GPU and a model of another kind refuse it in words."""
    machine.bring_up(1)
    from inference.text import model

    with pytest.raises(ModelMisconfigured, match="needs a CPU"):
        model.computing_dtype(row(dtype="int8"), "cuda", SimpleNamespace())
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    with pytest.raises(ModelMisconfigured, match="needs a CPU"):
        model.computing_dtype(row(dtype="int8"), "cpu", SimpleNamespace())
    with pytest.raises(ModelMisconfigured, match="for text models"):
        machine.dtype_of("int8", "cpu")


@pytest.mark.parametrize("wanted", ["bfloat16", "int8"])
def test_a_row_is_its_own_in_any_format(monkeypatch: pytest.MonkeyPatch, wanted: Any) -> None:
    """Logits have the same bits alone and beside others and lie near those of float32; weights are narrower."""
    machine.bring_up(1)
    from inference.text.model import load

    monkeypatch.setattr(machine, "computes_bfloat16", lambda: True)  # slow elsewhere, and right
    made = load(row(dtype=wanted), lambda stage, part: None, ())
    whole = load(row(dtype="float32"), lambda stage, part: None, ())
    assert made.size_bytes < {"bfloat16": 0.51, "int8": 0.5}[wanted] * whole.size_bytes
    prompts = [whole.tokenizer(text)["input_ids"] for text in ("What is the capital of Korea?", "Hello", "A story")]

    def decoded(model: Any, present: list[int]) -> dict[int, Any]:
        decoder = model.decoder(4)
        for slot in present:
            decoder.read(slot, prompts[slot], 0)
        return dict(decoder.decode(dict.fromkeys(present, 7)))

    crowd = decoded(made, [0, 1, 2])
    for slot in (0, 2):
        assert np.array_equal(decoded(made, [slot])[slot], crowd[slot])
        near = np.corrcoef(crowd[slot], decoded(whole, [slot])[slot])[0, 1]
        assert near > 0.995


def test_weights_in_their_own_format_are_the_files_pages(tmp_path: Path) -> None:
    """A model that is computed as it is stored is mapped, not copied."""
    machine.bring_up(1)
    from inference.text.model import load

    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    told = json.loads((folder / "config.json").read_text())
    assert told["dtype"] == "float16"
    made = load(
        Model(id="m", provider="p", load=Load(source=str(folder), dtype="float16")), lambda stage, part: None, ()
    )
    assert made.size_bytes > 0
    maps = Path("/proc/self/maps")
    if maps.exists():  # Linux tells
        assert any(str(folder) in line for line in maps.read_text().splitlines())
