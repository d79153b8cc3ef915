"""What installs the packages: uv with what pip is told, else pip."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local import installer

TOLD = """\
:env:.cert='/etc/ssl/ca.crt'
:env:.index-url='https://index.example/simple'
global.index-url='https://other.example/simple'
global.extra-index-url='file:///a/simple file:///b/simple'
global.find-links='/wheels /more'
install.trusted-host='index.example'
list.format='columns'
"""


def test_uv_is_told_what_pip_is_told() -> None:
    """Indexes, folders, certificates; the environment wins over a file, as for pip."""
    assert installer.translated(TOLD) == {
        "SSL_CERT_FILE": "/etc/ssl/ca.crt",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_INDEX": "file:///a/simple file:///b/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "index.example",
    }


@pytest.mark.parametrize("wanted", ["uv", "pip"])
@pytest.mark.parametrize("there", [True, False])
def test_pip_where_uv_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, there: bool) -> None:
    """uv is used where it is in the environment and `MOA_INSTALLER` does not want pip."""
    monkeypatch.setenv("MOA_INSTALLER", wanted)
    if there:
        (tmp_path / "uv").touch()
    python = tmp_path / "python"
    first, *rest = installer.line(python)
    if there and wanted == "uv":
        assert (first, rest) == (str(tmp_path / "uv"), ["pip", "install", "--python", str(python)])
    else:
        assert (first, rest[:2], rest[-1]) == (str(python), ["-m", "pip"], "install")
