"""The dashboard's files, as the edge serves them."""

from __future__ import annotations

import pytest
import requests

from deploy.local.stack import Stack
from gateway.pages import FOLDER


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/app.js", "text/javascript"), ("/words.js", "text/javascript"), ("/style.css", "text/css")],
)
def test_a_file_comes_as_it_is(edge: Stack, path: str, kind: str) -> None:
    """Each file is served whole, with its type, and may run nobody else's scripts."""
    answer = requests.get(edge.url + path, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.content == (FOLDER / (path[1:] or "index.html")).read_bytes()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/../routes.py", "/%2e%2e/routes.py", "/..%2froutes.py", "/routes.py", "/web/app.js"])
def test_nothing_else_of_the_machine_is_served(edge: Stack, path: str) -> None:
    """Paths that would climb out of the folder find nothing."""
    url = edge.url + path
    prepared = requests.Request("GET", url).prepare()
    prepared.url = url  # as written: the library would tidy it
    with requests.Session() as session:
        assert session.send(prepared, timeout=10).status_code in (400, 404)


def test_a_page_takes_no_post(edge: Stack) -> None:
    """Posting to the page is refused like any path that is not there."""
    assert requests.post(edge.url + "/", json={}, timeout=10).status_code in (404, 405)
