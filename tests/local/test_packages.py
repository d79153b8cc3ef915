"""What runs needs only the packages that are locked to run; the tests' own are not there in production."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest

from deploy.local.stack import REPOSITORY

IMPORT_ALL = """
import importlib, pkgutil

count = 0
for top in ("services", "gateway", "inference", "deploy.local"):
    package = importlib.import_module(top)
    for found in pkgutil.walk_packages(package.__path__, top + "."):
        if ".training" not in found.name and ".bench" not in found.name:
            importlib.import_module(found.name)
            count += 1
import diffusers, transformers
from huggingface_hub import snapshot_download
for name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"):
    getattr(diffusers, name)
for name in ("AutoModelForCausalLM", "AutoTokenizer", "CLIPModel", "Florence2ForConditionalGeneration"):
    getattr(transformers, name)
print(count)
"""


def locked() -> set[str]:
    """Return the packages of the locks of what runs, and torch."""
    names = {"torch"}
    for lock in ("base", "web", "inference"):
        text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
        names.update(re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE))
    return names


def link(wanted: set[str], into: Path) -> None:
    """Link the files of these packages, whole folders where they share none with others."""
    files: dict[metadata.PackagePath, metadata.Distribution] = {}
    owners: dict[PurePosixPath, set[str]] = defaultdict(set)
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        for file in distribution.files or []:
            for folder in file.parents:
                owners[folder].add(name)
            if name in wanted and ".." not in file.parts:
                files[file] = distribution
    for file, distribution in files.items():
        whole: PurePosixPath = next((at for at in list(file.parents)[-2::-1] if owners[at] <= wanted), file)
        link = into / whole
        if not link.is_symlink() and (target := Path(str(distribution.locate_file(whole)))).exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


@pytest.mark.timeout(300)  # imports all that there is, slower where the cores are shared
def test_no_module_needs_what_only_tests_install(tmp_path: Path) -> None:
    """Every module that runs is imported where there are only the packages that are locked to run."""
    link(locked(), tmp_path)
    assert not (tmp_path / "pytest").exists()
    folders = (tmp_path, REPOSITORY / "gen", REPOSITORY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    # Without `site`, so that this environment's own packages are not seen.
    line = [sys.executable, "-S", "-c", IMPORT_ALL]
    done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
