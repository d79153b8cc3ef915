"""The wheel of the contracts, as another team installs it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from deploy.build.stubs import build

CALL = """
import moa.text.v1.text_pb2 as text, moa.image.v1.image_service_pb2_grpc as image, sys
assert text.Part(text="hi").WhichOneof("part") == "text"
assert image.ImageServiceStub
assert text.__file__.startswith(sys.argv[1]), text.__file__
"""


def test_wheel(tmp_path: Path) -> None:
    """It holds the stubs with their types and nothing else, and works where the repository is not."""
    wheel = build(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "moa/py.typed" in names
    assert "moa/text/v1/text_service_pb2.pyi" in names
    assert {name.split("/")[0] for name in names} == {"moa", wheel.name.rsplit("-", 3)[0] + ".dist-info"}

    where = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(where)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    environment = {"PYTHONPATH": str(where)}
    subprocess.run([sys.executable, "-c", CALL, str(where)], check=True, cwd=tmp_path, env=environment)
