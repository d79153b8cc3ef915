"""Whether what a costly target depends on has changed, by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.build import inputs
from deploy.build.inputs import Target

TARGET = Target(tests=("tests/slow",), whole=("weights",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository whose test imports a module that imports another; a third is imported by nobody."""
    files = {
        "tests/slow/test_it.py": "from services.one import thing\n",
        "services/__init__.py": "",
        "services/one.py": "def thing():\n    from services import two\n",
        "services/two.py": "import services.deep.three as three\n",
        "services/deep/__init__.py": "",
        "services/deep/three.py": "import os\n",
        "services/other.py": "",
        "weights/model.bin": "0101",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "is_input"),
    [
        ("tests/slow/test_it.py", True),
        ("services/one.py", True),
        ("services/two.py", True),
        ("services/deep/__init__.py", True),
        ("services/deep/three.py", True),
        ("weights/model.bin", True),
        ("services/other.py", False),
        ("README.md", False),
    ],
)
def test_inputs_are_what_is_imported_and_what_is_named(tree: Path, file: str, is_input: bool) -> None:
    """A change counts in a test, in a module imported by whatever way, and in a named folder; not elsewhere."""
    before = inputs.digest(TARGET, tree)
    (tree / file).write_text("changed = 1\n")
    assert (inputs.digest(TARGET, tree) != before) is is_input


@pytest.mark.parametrize(("file", "is_input"), [("services/one.py", True), ("services/two.py", False)])
def test_what_is_kept_apart_counts_where_it_is_named(tree: Path, file: str, is_input: bool) -> None:
    """A package that carries requests alone does not count, nor what it imports; a file of it that is named does."""
    target = Target(tests=("tests/slow",), whole=("weights", "services/one.py"), apart=("services",))
    before = inputs.digest(target, tree)
    (tree / file).write_text("changed = 1\n")
    assert (inputs.digest(target, tree) != before) is is_input


CATALOGUE = """
models:
  - {id: ours, load: {source: ../inference/models/ours, options: {threshold: 0.4}}}
  - {id: cloud, prices: {input: 0.15}}
  - {id: fetched, load: {source: "package:somewhere"}}
"""


@pytest.mark.parametrize(
    ("old", "new", "is_input"), [("0.4", "0.5", True), ("0.15", "0.16", False), ("somewhere", "elsewhere", False)]
)
def test_of_a_catalogue_the_models_that_ship_count(tree: Path, old: str, new: str, is_input: bool) -> None:
    """A new price of a cloud's model is no reason to score our own again."""
    target = Target(tests=("tests/slow",), whole=(), models="catalogue.yaml")
    (tree / "catalogue.yaml").write_text(CATALOGUE)
    before = inputs.digest(target, tree)
    (tree / "catalogue.yaml").write_text(CATALOGUE.replace(old, new))
    assert (inputs.digest(target, tree) != before) is is_input


def test_a_new_file_in_a_named_folder_counts(tree: Path) -> None:
    """So do a file that is gone and one that is renamed."""
    seen = {inputs.digest(TARGET, tree)}
    (tree / "weights" / "more.bin").write_text("0101")
    seen.add(inputs.digest(TARGET, tree))
    (tree / "weights" / "more.bin").rename(tree / "weights" / "less.bin")
    seen.add(inputs.digest(TARGET, tree))
    (tree / "weights" / "model.bin").unlink()
    seen.add(inputs.digest(TARGET, tree))
    assert len(seen) == 4


def test_only_the_inputs_of_a_pass_count_as_passed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not passed before the first pass; passed after it; not passed once an input changed; passed once it is back."""
    monkeypatch.setattr(inputs, "ROOT", tree)
    monkeypatch.setitem(inputs.TARGETS, "slow", TARGET)
    (tree / "tests" / "suite").mkdir()
    assert inputs.main(["slow"]) == 1
    assert inputs.main(["slow", "--run", "false"]) == 1
    assert inputs.main(["slow"]) == 1
    assert inputs.main(["slow", "--run", "true"]) == 0
    assert inputs.main(["slow"]) == 0
    (tree / "weights" / "model.bin").write_text("1111")
    assert inputs.main(["slow"]) == 1
    (tree / "weights" / "model.bin").write_text("0101")
    assert inputs.main(["slow"]) == 0


def test_inputs_that_change_while_they_are_tried_have_not_passed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passed is what was there when it began."""
    monkeypatch.setattr(inputs, "ROOT", tree)
    monkeypatch.setitem(inputs.TARGETS, "slow", TARGET)
    assert inputs.main(["slow", "--run", "cp", "weights/model.bin", "weights/more.bin"]) == 1
    assert inputs.main(["slow"]) == 1


def test_the_inputs_of_training_hold_the_models_and_the_engine() -> None:
    """The weights that are scored, the code that trains and draws, what is looked for in pictures, and the versions of
    what they run on; not what carries requests."""
    found = {path.as_posix() for path in inputs.files(inputs.TARGETS["test-training"])}
    assert "requirements/inference.txt" in found
    assert "inference/training/scores.py" in found
    assert "services/desk/domain/items.py" in found
    assert not any(name.startswith("services/common/") for name in found)
    assert len(inputs.shipped((inputs.ROOT / "gateway/catalogue.yaml").read_bytes())) == 3
    assert any(name.startswith("inference/models/") and name.endswith(".safetensors") for name in found)


def test_the_inputs_of_the_containers_hold_what_is_built_and_started() -> None:
    """The images, their packages, the processes and how they are tried; not the code that runs in them."""
    found = {path.as_posix() for path in inputs.files(inputs.TARGETS["containers"])}
    assert {
        "docker-compose.yml",
        "deploy/container/Dockerfile",
        "deploy/container/trial.py",
        "deploy/local/topology.py",
        "requirements/base.txt",
        "requirements/inference.txt",
    } <= found
    assert not any(name.startswith(("services/", "inference/", "gateway/")) for name in found)
