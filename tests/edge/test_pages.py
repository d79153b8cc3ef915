"""The console's files and the API's description, as the edge serves them."""

from __future__ import annotations

import gzip
import socket
import time
from pathlib import Path

import psutil
import pytest
import requests

from deploy.local.stack import Stack
from services.common.pages import FOLDER, Page, pages
from tests.edge.upstream import Upstream

PLAIN = {"accept-encoding": "identity"}


@pytest.mark.parametrize("page", pages().values(), ids=lambda page: page.path)
def test_a_file_comes_as_it_is(edge: Stack, page: Page) -> None:
    """Each file is served whole, with its type, and may run nobody else's scripts."""
    answer = requests.get(edge.url + page.path, headers=PLAIN, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == page.content_type
    assert answer.content == page.file.read_bytes()
    assert answer.headers["content-length"] == str(len(answer.content))
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in answer.headers if name.startswith(("x-moa-", "grpc-"))]


def test_a_browser_that_has_a_file_is_told_so(edge: Stack) -> None:
    """The tag of an answer, sent back, is 304 without a body, and the connection goes on; another tag is the file."""
    with requests.Session() as session:
        first = session.get(edge.url + "/docs.js", timeout=60)
        tag = first.headers["etag"]
        again = session.get(edge.url + "/docs.js", headers={"if-none-match": f'"x", W/{tag}'}, timeout=60)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == "no-cache"
        assert session.get(edge.url + "/docs.js", headers={"if-none-match": '"x"'}, timeout=60).content == first.content


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.0, br", False),
    ],
)
def test_files_are_compressed_for_who_takes_that(edge: Stack, accepted: str, compressed: bool) -> None:
    """With a tag of their own, and the header that keeps caches from mixing the two up."""
    url = edge.url + "/swagger-ui-bundle.js"
    with requests.get(url, headers={"accept-encoding": accepted}, stream=True, timeout=60) as answer:
        body = answer.raw.read(decode_content=False)
    plain = requests.get(url, headers=PLAIN, timeout=60)
    assert (answer.headers.get("content-encoding") == "gzip") is compressed
    assert (gzip.decompress(body) if compressed else body) == plain.content
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["vary"] == "accept-encoding"
    assert (answer.headers["etag"] != plain.headers["etag"]) is compressed


def test_a_head_request_has_the_headers_alone(edge: Stack) -> None:
    """As GET would have them, with the length, and no body."""
    asked, told = requests.get(edge.url + "/", timeout=60), requests.head(edge.url + "/", timeout=10)
    assert (told.status_code, told.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "content-security-policy"):
        assert told.headers[name] == asked.headers[name]


@pytest.mark.parametrize(
    "path",
    ["/../routes.py", "/%2e%2e/routes.py", "/..%2froutes.py", "/routes.py", "/web/app.js", "/index.html", "/docs/"],
)
def test_nothing_else_of_the_machine_is_served(edge: Stack, path: str) -> None:
    """Paths that would climb out of the folder find nothing."""
    url = edge.url + path
    prepared = requests.Request("GET", url).prepare()
    prepared.url = url  # as written: the library would tidy it
    with requests.Session() as session:
        assert session.send(prepared, timeout=60).status_code in (400, 404)


def test_a_page_takes_no_post(edge: Stack) -> None:
    """Posting to the page is refused like any path that is not there."""
    assert requests.post(edge.url + "/", json={}, timeout=60).status_code in (404, 405)


def test_those_who_do_not_read_hold_no_files(edge: Stack, upstream: Upstream) -> None:
    """A hundred callers ask for the largest file, 1.4 MB, and read nothing of it: the edge keeps little of each."""
    size = (pages()["/swagger-ui-bundle.js"].file).stat().st_size
    assert size > 1_000_000
    keeper = psutil.Process(edge.pid("edge"))
    envoy = next(child for child in keeper.children() if child.name() == "envoy")
    before = envoy.memory_info().rss
    head = b"GET /swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"
    callers = []
    try:
        for _ in range(100):
            caller = socket.socket()
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", edge.port))
            caller.sendall(head)
            callers.append(caller)
        for caller in callers:
            caller.settimeout(20)
            assert caller.recv(16).startswith(b"HTTP/1.1 200")
        most = max(_sampled(envoy) for _ in range(10))
    finally:
        for caller in callers:
            caller.close()
    assert most - before < 60 * 2**20


def _sampled(process: psutil.Process) -> int:
    time.sleep(0.05)  # over half a second: what would be kept is kept by then
    return int(process.memory_info().rss)


def test_a_console_of_several_files(tmp_path: Path) -> None:
    """A folder's index is had by its path, its files by their names; those named by content are kept for good.

    Hidden files and links are none.
    """
    console = tmp_path / "console" / "assets"
    console.mkdir(parents=True)
    names = ("index.html", "assets/app-B7xQ2k9Z.js", "assets/style.css", "assets/logo.png", ".env")
    for name in names:
        (tmp_path / "console" / name).write_text(name)
    (tmp_path / "secret").symlink_to("/etc/passwd")
    found = pages(tmp_path, others=False)
    assert set(found) == {"/console", *(f"/console/{name}" for name in names[1:4])}
    cached = {path for path, page in found.items() if "immutable" in page.headers["cache-control"]}
    assert cached == {"/console/assets/app-B7xQ2k9Z.js"}
    assert found["/console"].content_type == "text/html; charset=utf-8"
    assert [path for path, page in found.items() if not page.shrinks] == ["/console/assets/logo.png"]
    assert pages(others=False).keys() >= {"/", "/docs.js", "/docs"}
    assert FOLDER.is_dir()
