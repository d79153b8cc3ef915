"""What bounds the time of each call, as the routes say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.build.openapi.bodies import METHODS
from deploy.local.stack import REPOSITORY
from gateway import bindings
from gateway.retries import KEYED, KEYED_S, READ_S
from gateway.routes import route_config
from gateway.settings import EdgeSettings

BINDINGS = bindings.read(REPOSITORY / "build" / "moa.binpb")


def served() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield what each route matches and where it leads, by the defaults."""
    [host] = route_config(BINDINGS, EdgeSettings())["virtual_hosts"]
    for route in host["routes"]:
        if "route" in route:
            match = {"name": route.get("name", ""), **route["match"]}
            yield match, {"retry_policy": host["retry_policy"], **route["route"]}


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each route of requests without an idempotency key, and where it leads."""
    return ((match["name"], target) for match, target in served() if KEYED not in match.get("headers", ()))


def again(target: dict[str, Any]) -> bool:
    """Return whether a call that a process was at when it died is made again."""
    return "reset" in target["retry_policy"]["retry_on"].split(",")


def test_what_is_made_again_when_a_connection_is_given_up_is_bounded() -> None:
    """A router that stands still is found out after half a minute, and a call that is made again waits as long again,
    forty times: so only what is answered at once is made again, and its time is bounded. Long answers are neither."""
    repeated = {name: target for name, target in targets() if again(target)}
    assert {"/v1/models", "/account/usage", "/v1/tasks/{id}", "/v1/tasks/{id}/cancel", "/"} <= repeated.keys()
    assert not {"/v1/tasks", "/v1/predictions", "/v1/generate"} - {
        name for name, target in targets() if not again(target)
    }
    writes = {each.template for each in BINDINGS if each.method in ("StartOidc", "FinishOidc")}
    assert len(writes) == 2
    assert not writes & repeated.keys(), "by GET, and a code holds once"
    for name, target in repeated.items():
        total = float(target["timeout"].removesuffix("s"))
        assert 0 < (total or float(target["idle_timeout"].removesuffix("s"))) <= READ_S, name
    long = {"/v1/tasks/{id}/events", "/files/{name}", "/v1/responses/{response_id}", "/v1/chat/completions"}
    assert not long & repeated.keys()
    idle = {target["idle_timeout"] for name, target in targets() if name in long}
    assert idle == {"900s", "10s"}, "that of an answer, and of a body that still comes"


def test_what_is_done_once_by_its_key_is_made_again_with_one() -> None:
    """Every way to make a task, REST and gRPC, before the route of calls without a key; and nothing that is not: what a
    router is paid for is answered by the router that did it, or by nobody."""
    marked = {f"{each.service}.{each.method}" for each in BINDINGS if each.keyed}
    assert marked == {name for name, method in METHODS.items() if method.creates_task}
    routes = [(match, target) for match, target in served() if KEYED in match.get("headers", ())]
    rest = {each.template for each in BINDINGS if each.keyed}
    assert {match["name"] for match, _ in routes} == rest | {"moa.task.v1.TaskService"}
    for match, target in routes:
        assert again(target), match
        assert float(target["idle_timeout"].removesuffix("s")) <= KEYED_S, match
