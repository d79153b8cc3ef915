"""Worlds with a virtual model, for tests of routes."""

from __future__ import annotations

from typing import Any

from services.catalogue import Route, RouteTarget
from tests.router.world import World


def route(*targets: Any, **more: Any) -> Route:
    rows = tuple(one if isinstance(one, RouteTarget) else RouteTarget(model=one) for one in targets)
    return Route(id=more.pop("name", "team"), targets=rows, **more)


def world(*targets: Any, changes: dict[str, Any] | None = None, **more: Any) -> World:
    return World(routes=[route(*targets, **more)], **(changes or {}))
