"""The real Envoy, started once, in front of a router that does what a test asks."""

from __future__ import annotations

import datetime
import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.stack import Stack
from tests import forking
from tests.edge.upstream import Upstream


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep what the tests' own servers log out of a test's output; other tests look at what is logged."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="package")
def _running() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(_running: Upstream) -> Upstream:
    """The router behind the edge, with no memory of earlier tests."""
    _running.held.reset()
    return _running


@pytest.fixture(scope="package")
def edge(_running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The edge alone, calling `upstream`."""
    root: Path = tmp_path_factory.mktemp("edge")
    address = f"127.0.0.1:{_running.port}"
    environment = {
        "MOA_ROUTER_ADDRESSES": address,
        "MOA_TASKS_ADDRESSES": address,
        # Nobody is waited for: the other services of these tests are never there.
        "MOA_EDGE_RETRIES": "2",
        "MOA_EDGE_LOG_FLUSH_S": "0.05",
    }
    with Stack(root, processes=["edge"], start=forking.spawn, environment=environment) as stack:
        yield stack
        # A script that fails lets the request go on, unwatched.
        assert "[lua]" not in stack.log("edge").read_text()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "moa")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"
