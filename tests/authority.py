"""An authority that certifies Moa's processes, as cert-manager does in a cluster."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local.topology import PROCESSES

NAME = "{}.moa.internal"
"""Of a process's certificate, where nothing else is set."""
_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {id(self)}")])
        basics = x509.BasicConstraints(ca=True, path_length=None)
        made = (
            _begun(self._name, self._key.public_key(), 30).issuer_name(self._name).add_extension(basics, critical=True)
        )
        self.pem = made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def certify(self, folder: Path, *names: str, days: float = 1, trusts: Iterable[Authority] = ()) -> Path:
        """Write a certificate for some names into a folder, and return that; each file is replaced at once.

        `days` in the past make one that has expired. `trusts` are the authorities that its holder believes; this one
        alone by default.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        named = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        made = _begun(x509.Name([]), key.public_key(), days).issuer_name(self._name).add_extension(named, critical=True)
        files = {
            "ca.crt": b"".join(each.pem for each in trusts) or self.pem,
            "tls.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "tls.crt": made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            new = folder / f".{name}"
            new.write_bytes(content)
            new.replace(folder / name)
        return folder

    def certify_processes(self, folder: Path) -> Path:
        """Write a certificate for each process, as the launcher takes them, and return the folder."""
        for process in {process.certificate_name for process in PROCESSES}:
            self.certify(folder / process, NAME.format(process))
        return folder


def _begun(name: x509.Name, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * _DAY)
        .not_valid_after(now + days * _DAY)
    )
