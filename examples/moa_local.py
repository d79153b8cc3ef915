"""Where the gateway is and with which key: `MOA_URL` and `MOA_API_KEY`, else what `make run` left in `.moa/dev.env`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[1]

# A team elsewhere installs the stubs as a wheel (`make stubs`). Here they lie in gen/, and grpcio in .venv.
sys.path.insert(0, str(REPOSITORY / "gen"))
_python = REPOSITORY / ".venv" / "bin" / "python"
if importlib.util.find_spec("grpc") is None and _python.exists() and sys.prefix == sys.base_prefix:
    os.execv(_python, [str(_python), *sys.argv])

import grpc  # noqa: E402


def _settings() -> dict[str, str]:
    values: dict[str, str] = {}
    file = REPOSITORY / ".moa" / "dev.env"
    if file.exists():
        values = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
    return {**values, **{name: value for name, value in os.environ.items() if name in ("MOA_URL", "MOA_API_KEY")}}


def connect() -> tuple[grpc.Channel, tuple[tuple[str, str], ...]]:
    """Open a channel; give it with the metadata that carries the key."""
    settings = _settings()
    if not settings.get("MOA_URL") or not settings.get("MOA_API_KEY"):
        sys.exit("no gateway: start one with `make run`, or set MOA_URL and MOA_API_KEY")
    url = urlsplit(settings["MOA_URL"])
    target = f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}"
    options = [("grpc.max_receive_message_length", 64 * 2**20)]  # pictures are larger than gRPC's default of 4 MiB
    if url.scheme == "https":
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
    else:
        channel = grpc.insecure_channel(target, options)
    return channel, (("x-api-key", settings["MOA_API_KEY"]),)
