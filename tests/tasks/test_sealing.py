"""Content credentials (C2PA) in outputs, signed with a certificate that is made here."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.task.v1 import task_pb2
from services.tasks.adapters.upstream import MadeImage
from services.tasks.domain.task import Task
from services.tasks.worker.finishing import Finisher
from services.tasks.worker.sealing import BadCertificate, Seal
from tests.emulators.painter import paint
from tests.tasks.conftest import Make

Key = ec.EllipticCurvePrivateKey


def certificate(subject: str, issuer: str, key: Key, signer: Key, *, authority: bool) -> bytes:
    """Make a certificate as C2PA 2.2, 14.5 wants them."""

    def name(words: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(kind, words) for kind in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)])

    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def written(path: Path, key: Key) -> Path:
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, bytes]:
    """Return a chain, its key, and the root that it ends at."""
    folder = tmp_path_factory.mktemp("certificates")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("Moa's test root", "Moa's test root", root_key, root_key, authority=True)
    leaf = certificate("Moa's test", "Moa's test root", key, root_key, authority=False)
    (folder / "chain.pem").write_bytes(leaf + root)
    return folder / "chain.pem", written(folder / "key.pem", key), root


def read(data: bytes, mime_type: str, root: bytes) -> dict[str, Any]:
    """Verify an image's credentials against a root; give what the verifier says."""
    context = c2pa.Context.from_json(json.dumps({"trust": {"trust_anchors": root.decode()}}))
    with c2pa.Reader(mime_type, io.BytesIO(data), None, context) as reader:
        found: dict[str, Any] = json.loads(reader.json())
    return found


def prompted(task: Task, wanted: image_pb2.OutputFormat.ValueType = image_pb2.OUTPUT_FORMAT_UNSPECIFIED) -> Task:
    request = image_service_pb2.GenerateImageRequest(prompt="a very secret wish", output_format=wanted)
    task.work = task_pb2.TaskWork(image=request).SerializeToString()
    return task


def painted() -> image_pb2.Image:
    image = media_pb2.ImageData(data=paint("x", 0, 64, 48), mime_type="image/png", width=64, height=48)
    return image_pb2.Image(image=image, receipt=image_pb2.Receipt(seed=2**62 + 1))


@pytest.mark.parametrize(
    ("wanted", "mime_type"),
    [
        (image_pb2.OUTPUT_FORMAT_UNSPECIFIED, "image/png"),
        (image_pb2.OUTPUT_FORMAT_JPEG, "image/jpeg"),
        (image_pb2.OUTPUT_FORMAT_WEBP, "image/webp"),
    ],
)
async def test_an_output_carries_signed_credentials(
    make: Make, files: tuple[Path, Path, bytes], wanted: image_pb2.OutputFormat.ValueType, mime_type: str
) -> None:
    """A verifier that trusts the root says who signed, that a model made it, which, and with what seed; no prompt.

    What is noted of the output (size, digest) is of the sealed file, and it opens as before.
    """
    chain, key, root = files
    task = prompted(make(), wanted)
    spooled, sealed = await Finisher(seal=Seal(chain, key)).finish(task, MadeImage.of(0, painted()))
    assert spooled.output.size_bytes == len(sealed)
    with Image.open(io.BytesIO(sealed)) as image:
        assert image.size == (64, 48)
    found = read(sealed, mime_type, root)
    assert found["validation_state"] == "Trusted"
    manifest = found["manifests"][found["active_manifest"]]
    assert manifest["signature_info"]["common_name"] == "Moa's test"
    [action] = next(a["data"]["actions"] for a in manifest["assertions"] if a["label"] == "c2pa.actions.v2")
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert action["softwareAgent"]["name"] == f"{task.provider}/{task.model}"
    assert action["parameters"] == {"task": task.id, "seed": str(2**62 + 1)}
    assert b"secret wish" not in sealed


async def test_a_changed_image_is_told_by_its_seal(make: Make, files: tuple[Path, Path, bytes]) -> None:
    """One changed byte of the picture, and the verifier says that it is invalid."""
    chain, key, root = files
    _, sealed = await Finisher(seal=Seal(chain, key)).finish(prompted(make()), MadeImage.of(0, painted()))
    at = sealed.rindex(b"IDAT") + 10
    changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
    assert read(changed, "image/png", root)["validation_state"] == "Invalid"


async def test_without_a_certificate_nothing_is_signed(make: Make) -> None:
    """It is off by default: the bytes stay as the model made them."""
    _, stored = await Finisher().finish(prompted(make()), MadeImage.of(0, painted()))
    assert stored == painted().image.data


def test_what_cannot_sign_is_refused_at_the_start(files: tuple[Path, Path, bytes], tmp_path: Path) -> None:
    """A missing file, another certificate's key, and what is no key."""
    chain, key, _ = files
    other = written(tmp_path / "other.pem", ec.generate_private_key(ec.SECP256R1()))
    for bad_chain, bad_key in ((tmp_path / "absent.pem", key), (chain, other), (chain, chain)):
        with pytest.raises(BadCertificate):
            Seal(bad_chain, bad_key)
