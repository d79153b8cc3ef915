"""Content credentials inside outputs: who made an image, and by what, signed by the C2PA standard (c2pa.org).

`c2pa-python` is imported only where a certificate is configured: nobody else needs it.
"""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, Final

from services.common import logs
from services.common.errors import Internal, Unavailable
from services.tasks.adapters.upstream import MadeImage
from services.tasks.domain.task import Task

_log = logs.get("tasks.seal")

_MADE: Final = "trainedAlgorithmicMedia"
_EDITED: Final = "compositeWithTrainedAlgorithmicMedia"
# A thumbnail would make a small image ten times as large, and the image itself is there.
_SETTINGS: Final = {"builder": {"thumbnail": {"enabled": False}}}
_PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000"
    "040001f61738550000000049454e44ae426082"
)
"""A PNG, to try a certificate on."""


class BadCertificate(Exception):
    """What is configured cannot sign. The message is for whoever configured it."""


class Seal:
    """Signs images with a certificate.

    Args:
        certificate: A PEM file with the certificate and those between it and its root, in this order. Verifiers
            trust what is on their lists; one of one's own making is shown as untrusted.
        key: A PEM file with its private key.
        timestamp_url: A time-stamping authority (RFC 3161), so that signatures outlive the certificate; empty: none.

    Raises BadCertificate.
    """

    def __init__(self, certificate: Path, key: Path, *, timestamp_url: str = "") -> None:
        try:
            import c2pa  # an option
        except ImportError:
            raise BadCertificate("c2pa-python is not installed (requirements/provenance.txt)") from None
        self._c2pa: Any = c2pa
        try:
            chain, private = certificate.read_bytes(), key.read_bytes()
        except OSError as error:
            raise BadCertificate(f"{error.filename}: {error.strerror}") from None
        self._info = c2pa.C2paSignerInfo(
            alg=_algorithm(private), sign_cert=chain, private_key=private, ta_url=timestamp_url or None
        )
        self._asks_outside = bool(timestamp_url)
        try:
            self._context = c2pa.Context.from_json(json.dumps(_SETTINGS))
            self._sign(_PIXEL, "image/png", _manifest("a trial", _MADE, {}))
        except c2pa.C2paError as error:
            raise BadCertificate(f"{certificate.name}: {error}") from None

    async def sealed(self, made: MadeImage, task: Task, *, edited: bool) -> bytes:
        """Return the image with its credentials: model, task and seed, and no prompt.

        Raises Unavailable while the time-stamping authority is away, Internal for an image that cannot be signed.
        """
        parameters = {"task": task.id}
        if made.receipt is not None:
            # As text: readers in JavaScript lose what is beyond 53 bits.
            parameters["seed"] = str(made.receipt.seed)
        manifest = _manifest(f"{task.provider}/{task.model}", _EDITED if edited else _MADE, parameters)
        try:
            return await asyncio.to_thread(self._sign, made.data, made.mime_type, manifest)
        except self._c2pa.C2paError as error:
            _log.warning("seal.failed", task=task.id, why=str(error)[:200])
            failure = Unavailable if self._asks_outside else Internal
            raise failure("the image could not be signed") from None

    def _sign(self, data: bytes, mime_type: str, manifest: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        claim = json.dumps({"claim_generator_info": [{"name": "moa"}], **manifest})
        # A signer of its own each time: threads share none.
        with (
            self._c2pa.Signer.from_info(self._info) as signer,
            self._c2pa.Builder(claim, self._context) as builder,
        ):
            builder.sign(signer, mime_type, io.BytesIO(data), out)
        return out.getvalue()


def _manifest(agent: str, source: str, parameters: dict[str, str]) -> dict[str, Any]:
    action = {
        "action": "c2pa.created",
        "digitalSourceType": f"http://cv.iptc.org/newscodes/digitalsourcetype/{source}",
        "softwareAgent": {"name": agent},
        "parameters": parameters,
    }
    return {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}


def _algorithm(key: bytes) -> str:
    """Tell by what a private key signs (C2PA 2.2, 13.2.1). Raises BadCertificate."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # comes with c2pa-python
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise BadCertificate("the key is not an unencrypted PEM private key") from None
    if isinstance(private, ec.EllipticCurvePrivateKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if private.curve.name in known:
            return known[private.curve.name]
    elif isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise BadCertificate("the key is of a kind that C2PA does not sign by")
