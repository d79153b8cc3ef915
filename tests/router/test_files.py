"""`GET /files/{name}` through the real edge."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests

from services.common.store import Links, object_name
from tests.router.rig import KEY, OTHER_KEY, Rig

CONTENT = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def name(rig: Rig, url: str) -> Iterator[str]:
    made = object_name("acc1", "png")
    rig.run(lambda: rig.store.put(made, CONTENT, content_type="image/png"))
    yield made
    rig.run(lambda: rig.store.delete(made))


def test_a_link_gives_the_whole_file(rig: Rig, name: str) -> None:
    """A link needs no key; the answer has length, type and what a browser needs to be safe."""
    got = requests.get(rig.links.make(name), timeout=60)
    assert got.status_code == 200
    assert got.content == CONTENT
    assert got.headers["content-type"] == "image/png"
    assert got.headers["content-length"] == str(len(CONTENT))
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]
    assert not [key for key in got.headers if key.startswith(("x-moa-status", "x-moa-length", "grpc"))]


RANGES = {
    "begin": ("bytes=0-9", 206, CONTENT[:10], "bytes 0-9/{}"),
    "middle": ("bytes=300000-700000", 206, CONTENT[300000:700001], "bytes 300000-700000/{}"),
    "open": ("bytes=1048570-", 206, CONTENT[1048570:], "bytes 1048570-1048575/{}"),
    "suffix": ("bytes=-3", 206, CONTENT[-3:], "bytes 1048573-1048575/{}"),
    "past the end": ("bytes=1048575-9999999", 206, CONTENT[-1:], "bytes 1048575-1048575/{}"),
    "beyond": ("bytes=1048576-", 416, None, "bytes */{}"),
    "several": ("bytes=0-1,4-5", 200, CONTENT, None),
    "another unit": ("lines=0-1", 200, CONTENT, None),
    "backwards": ("bytes=9-3", 200, CONTENT, None),
}


@pytest.mark.parametrize(("asked", "status", "content", "told"), RANGES.values(), ids=RANGES.keys())
def test_a_range_is_answered(
    rig: Rig, name: str, asked: str, status: int, content: bytes | None, told: str | None
) -> None:
    """One range is 206 with its place; one past the end 416; what RFC 9110 lets a server ignore, the whole."""
    got = requests.get(rig.links.make(name), headers={"range": asked}, timeout=60)
    assert got.status_code == status
    assert got.headers.get("content-range") == (told.format(len(CONTENT)) if told else None)
    if content is None:
        assert got.json()["code"] == "range_not_satisfiable"
    else:
        assert got.content == content
        assert got.headers["content-length"] == str(len(content))


def test_head_and_validators(rig: Rig, name: str) -> None:
    """HEAD tells the length without a body; a known etag is 304; a range under an old one is the whole."""
    link = rig.links.make(name)
    head = requests.head(link, timeout=60)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))
    # A shared cache may keep it: the link is all that is needed to have it.
    assert re.fullmatch(r"public, max-age=\d+, immutable", head.headers["cache-control"])
    known = requests.get(link, headers={"if-none-match": head.headers["etag"]}, timeout=60)
    assert (known.status_code, known.content) == (304, b"")
    stale = requests.get(link, headers={"range": "bytes=0-1", "if-range": '"old"'}, timeout=60)
    assert (stale.status_code, len(stale.content)) == (200, len(CONTENT))


def test_what_is_no_valid_link_is_refused(rig: Rig, url: str, name: str) -> None:
    """No signature, another's, an expired one: 403. The name in the query cannot replace the path's. Unknown: 404."""
    link = rig.links.make(name)
    other = object_name("acc1", "png")
    for bad in (
        f"{url}/files/{name}",
        link[:-1],
        link.replace("expires=", "expires=9"),
        link.replace(name, other),
        link.replace(name, other) + f"&name={name}",
        rig.links.make(name, now_s=1000),
        Links(url, "another secret here", ttl_s=60).make(name),
    ):
        got = requests.get(bad, timeout=60)
        assert (got.status_code, got.json()["code"]) == (403, "permission_denied"), bad
    assert requests.get(rig.links.make(other), timeout=60).status_code == 404
    for odd in ("..%2Fetc", ".notes", "a%00b"):
        assert requests.get(f"{url}/files/{odd}", timeout=60).status_code in (400, 404)


def test_the_owner_needs_no_link(url: str, name: str) -> None:
    """The owner's key reads the file; another account's key finds nothing, a bad key is 401."""
    path = f"{url}/files/{name}"
    assert requests.get(path, headers={"x-api-key": KEY}, timeout=60).content == CONTENT
    assert requests.get(path, headers={"x-api-key": OTHER_KEY}, timeout=60).status_code == 404
    assert requests.get(path, headers={"x-api-key": "wrong"}, timeout=60).status_code == 401
