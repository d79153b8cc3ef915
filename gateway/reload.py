"""Return an edge that runs another configuration: no process ends, no connection is refused, streams go on."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from typing import Final

from gateway import clusters, envoy_supervisor
from gateway.render import Rendered, render
from gateway.settings import EdgeSettings
from services.common.otlp import Collector

_WITHIN_S: Final = 30.0
_ASK_AGAIN_S: Final = 0.05
_LISTENERS: Final = "listener_manager.lds"
_CLUSTERS: Final = "cluster_manager.cds"


def reload(settings: EdgeSettings, collector: Collector | None) -> int:
    """Write the configuration and return 0 when it is in force everywhere, 1 where it was refused or nobody runs."""
    folder = settings.edge_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sockets = [clusters.ADMIN_SOCKET.format(number) for number in range(1, settings.edge_processes + 1)]
    with contextlib.chdir(folder):
        refused = {admin: _refusals(admin) for admin in sockets}
    # Where it was begun: settings name files from there.
    rendered = render(settings, collector)
    os.chdir(folder)
    until = time.monotonic() + _WITHIN_S
    for admin in sockets:
        while not _runs_by(admin, rendered):
            if _refusals(admin) > refused[admin]:
                print(
                    "the edge refused the configuration and goes on with the one before: see its log", file=sys.stderr
                )
                return 1
            if time.monotonic() > until:
                print(f"no edge took the configuration within {_WITHIN_S:.0f} s", file=sys.stderr)
                return 1
            time.sleep(_ASK_AGAIN_S)
    rendered.forget_earlier()
    return 0


def _runs_by(admin: str, rendered: Rendered) -> bool:
    stats = envoy_supervisor.asked(admin, "GET", "/stats?type=TextReadouts&filter=version_text")
    versions = dict(re.findall(r'^(\S+)\.version_text: "([^"]*)"', stats, re.MULTILINE))
    return (versions.get(_LISTENERS), versions.get(_CLUSTERS)) == (rendered.listeners, rendered.clusters)


def _refusals(admin: str) -> int:
    stats = envoy_supervisor.asked(admin, "GET", "/stats?filter=update_rejected")
    return sum(int(count) for count in re.findall(r"^\S+\.update_rejected: (\d+)", stats, re.MULTILINE))
