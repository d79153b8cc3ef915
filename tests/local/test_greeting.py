"""What the launcher says when a gateway is ready."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deploy.local.words import ready


def _stack(root: Path, api_key: str) -> Any:
    return SimpleNamespace(
        root=root,
        url="http://127.0.0.1:8080",
        internal_url="http://127.0.0.1:8200",
        api_key=api_key,
        new_key=bool(api_key),
        first_login_url=lambda: "",
        fetches="never",
        seconds={"edge": 1.5},
    )


def test_commands_read_the_key_where_it_is(tmp_path: Path) -> None:
    """Each command takes the key from the file that is named."""
    text = ready(_stack(tmp_path, "mk_first"))
    assert "mk_first" in text
    file = str(tmp_path / "dev.env")
    assert text.count(f"$(sed -n s/^MOA_API_KEY=//p '{file}')") == len(re.findall("^curl", text, re.MULTILINE)) == 3


def test_accounts_of_another_host(tmp_path: Path) -> None:
    """Over a database that has accounts no key is made: no file is named that is not there."""
    text = ready(_stack(tmp_path, ""))
    assert "dev.env" not in text
    assert "set MOA_API_KEY to a key of theirs" in text
    assert text.count("$MOA_API_KEY") == 3
