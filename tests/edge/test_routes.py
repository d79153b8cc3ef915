"""Which route a request finds."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

from deploy.local.stack import REPOSITORY, Stack
from gateway import bindings
from gateway.routes import DIALECTS, FIRST, route_config
from gateway.settings import EdgeSettings

_NAMES = {"**": "a/b", "*": "a"}


def _example(template: str) -> str:
    """Return a path that a template takes."""
    path = re.sub(r"\{[a-z0-9_.]+(?:=([^}]*))?\}", lambda found: found[1] or "*", template)
    return re.sub(r"\*\*|\*", lambda found: _NAMES[found[0]], path)


def _takes(route: dict[str, Any], verb: str, path: str) -> bool:
    """Return whether a route of a request that is still coming takes this one, which has no header of its own."""
    match = route["match"]
    if "dynamic_metadata" in match:
        return False
    for header in match.get("headers", ()):
        asked = header.get("string_match", {})
        if header["name"] != ":method":
            return False
        if verb != asked.get("exact") and not re.fullmatch(asked.get("safe_regex", {}).get("regex", "-"), verb):
            return False
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    return path == match.get("path") or path.startswith(match.get("prefix", "-"))


def test_what_is_asked_most_comes_first_and_takes_no_other_path() -> None:
    """Every path finds the most specific binding of its method, though some are compared before others."""
    known = [each for each in bindings.read(REPOSITORY / "build" / "moa.binpb") if each.service in DIALECTS]
    assert set(FIRST) <= {binding.template for binding in known}
    [host] = route_config(known, EdgeSettings())["virtual_hosts"]
    for binding in known:
        path = _example(binding.template)
        meant = next(each for each in known if each.verb == binding.verb and re.fullmatch(each.regex, path))
        found = next(route for route in host["routes"] if _takes(route, binding.verb, path))
        assert found.get("name") == meant.template, path


def test_envoy_knows_every_field_that_it_is_given(edge: Stack) -> None:
    """Envoy passes over a field that it does not know in a file that it watches, and refuses it where it validates."""
    with urllib.request.urlopen(f"{edge.internal_url}/metrics/edge", timeout=10) as answer:
        told = answer.read().decode()
    assert re.search(r"^envoy_server_dynamic_unknown_fields\{\} 0$", told, re.MULTILINE), "see the edge's log"
