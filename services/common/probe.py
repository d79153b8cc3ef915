"""Whether a process on this machine serves: `python -m services.common.probe ADDRESS`, for containers' health checks.

An address with `http://` is read and must answer 200; another is asked by gRPC's health protocol, over TLS where
`MOA_SERVICE_TLS_DIR` names the process's certificate.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_LIMIT_S = 4.0


def serves(address: str) -> bool:
    """Return whether what listens at an address serves."""
    try:
        if address.startswith("http://"):
            # What is on this machine is asked without the proxy that the environment names for what is outside.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(address, timeout=_LIMIT_S) as answer:
                return bool(answer.status == 200)
        folder = os.environ.get("MOA_SERVICE_TLS_DIR")
        with own_channel(address, Path(folder) if folder else None, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answered = stub.Check(health_pb2.HealthCheckRequest(), timeout=_LIMIT_S)
            return bool(answered.status == health_pb2.HealthCheckResponse.SERVING)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, grpc.RpcError):
        return False


def own_channel(address: str, certificate: Path | None, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
    """Return a channel to a process of this machine, with the certificate of its own where it speaks TLS.

    Raises OSError where there is none that can be read.
    """
    if certificate is None:
        return grpc.insecure_channel(address, options=options)
    # The library takes longer to load than all else here.
    from services.common.rpc.certificates import BadCertificate, credentials_of, read

    try:
        held = read(certificate)
    except BadCertificate as error:
        raise OSError(str(error)) from None
    known = [*options, ("grpc.ssl_target_name_override", held.names[0])]
    return grpc.secure_channel(address, credentials_of(held), options=known)


if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1]) else 1)
