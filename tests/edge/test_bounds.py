"""What bounds the time of each call, as the routes say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.local.stack import REPOSITORY
from gateway import bindings
from gateway.routes import READ_S, route_config
from gateway.settings import EdgeSettings


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each route's name and where it leads, by the defaults."""
    settings = EdgeSettings()
    [host] = route_config(bindings.read(REPOSITORY / "build" / "moa.binpb"), settings)["virtual_hosts"]
    for route in host["routes"]:
        if "route" in route:
            yield route.get("name", ""), {"retry_policy": host["retry_policy"], **route["route"]}


def test_what_is_made_again_when_a_connection_is_given_up_is_bounded() -> None:
    """A router that stands still is found out after half a minute, and a call that is made again waits as long again,
    forty times: so only what is read at once is made again, and its time is bounded. Long answers are neither."""
    again = {name: target for name, target in targets() if "reset" in target["retry_policy"]["retry_on"].split(",")}
    assert {"/v1/models", "/account/usage", "/v1/tasks/{id}", "/"} <= again.keys()
    for name, target in again.items():
        total = float(target["timeout"].removesuffix("s"))
        assert 0 < (total or float(target["idle_timeout"].removesuffix("s"))) <= READ_S, name
    long = {"/v1/tasks/{id}/events", "/files/{name}", "/v1/responses/{response_id}", "/v1/chat/completions"}
    assert not long & again.keys()
    idle = {target["idle_timeout"] for name, target in targets() if name in long}
    assert idle == {"900s", "10s"}, "that of an answer, and of a body that still comes"
