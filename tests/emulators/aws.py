"""What AWS services check of every request: the signature, and the shapes of botocore's service models."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import botocore.session
from aiohttp import web
from botocore.model import ServiceModel, Shape

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SECRETS = {ACCESS_KEY: SECRET_KEY, "AKIDSECOND": "another/secret+key"}
REGION = "us-east-1"


@dataclass(frozen=True)
class Temporary:
    """Temporary credentials that were issued."""

    access: str
    secret: str
    token: str
    ends: datetime


class AwsRefused(Exception):
    """A refusal in AWS's form."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name

    def response(self) -> web.Response:
        """Return the HTTP answer."""
        headers = {"x-amzn-errortype": f"{self.name}:http://internal.amazon.com/", "x-amzn-requestid": "aws-req-1"}
        return web.json_response({"message": str(self)}, status=self.status, headers=headers)


def service_model(name: str) -> ServiceModel:
    """Return botocore's model of a service."""
    return botocore.session.Session().get_service_model(name)


def _check_temporary(request: web.Request, names: list[str], issued: Temporary | None) -> None:
    """Raise unless the session token is the one that belongs to temporary credentials, signed, and they are good."""
    token = request.headers.get("X-Amz-Security-Token")
    if token != (issued.token if issued else None):
        raise AwsRefused(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if issued and "x-amz-security-token" not in names:
        raise AwsRefused(403, "IncompleteSignatureException", "The security token must be signed.")
    if issued and issued.ends <= datetime.now(UTC):
        raise AwsRefused(403, "ExpiredTokenException", "The security token included in the request is expired")


def verify_signature(
    request: web.Request, body: bytes, *, service: str, issued: Mapping[str, Temporary] | None = None
) -> None:
    """Compute the request's Signature Version 4 anew, from the specification, and compare.

    `issued` are temporary credentials that are good beside those of `SECRETS`, by access key.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    header = request.headers.get("Authorization", "")
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        header,
    )
    if not found:
        raise AwsRefused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    access, day, region, signed_service, signed_headers, signature = found.groups()
    temporary = (issued or {}).get(access)
    secret = temporary.secret if temporary else SECRETS.get(access)
    if secret is None:
        raise AwsRefused(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if region != REGION or signed_service != service:
        raise AwsRefused(403, "InvalidSignatureException", "Credential should be scoped to a valid region and service.")
    names = signed_headers.split(";")
    _check_temporary(request, names, temporary)
    stamp = request.headers.get("X-Amz-Date", "")
    if "host" not in names or not stamp.startswith(day):
        raise AwsRefused(403, "IncompleteSignatureException", "host must be signed and the date must fit.")
    path, _, query = request.raw_path.partition("?")
    canonical = "\n".join(
        [
            request.method,
            quote(path, safe="/~-._"),  # every service but S3 encodes the encoded path again
            "&".join(sorted(query.split("&"))) if query else "",
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            signed_headers,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex(), signature):
        raise AwsRefused(403, "InvalidSignatureException", "The request signature we calculated does not match.")


def check_shape(value: Any, shape: Shape, path: str = "") -> None:
    """Raise ValidationException unless `value` (decoded JSON) fits a botocore shape, enums and limits included."""
    kind = shape.type_name
    meta = shape.metadata
    if getattr(shape, "is_document_type", False):
        return
    if kind == "structure":
        _check_structure(value, shape, path)
    elif kind == "list":
        _expect(isinstance(value, list), path, "a list")
        _check_range(len(value), meta, path)
        for index, inner in enumerate(value):
            check_shape(inner, shape.member, f"{path}[{index}]")
    elif kind == "map":
        _expect(isinstance(value, dict), path, "a map")
        for key, inner in value.items():
            check_shape(key, shape.key, path)
            check_shape(inner, shape.value, f"{path}.{key}")
    elif kind == "string":
        _expect(isinstance(value, str), path, "a string")
        _check_range(len(value), meta, path)
        _expect(not meta.get("enum") or value in meta["enum"], path, f"one of {meta.get('enum')}")
        pattern = meta.get("pattern")
        _expect(not pattern or re.fullmatch(pattern, value, re.DOTALL) is not None, path, f"to match {pattern}")
    elif kind == "blob":
        _expect(isinstance(value, str), path, "base64")
        try:
            _check_range(len(base64.b64decode(value, validate=True)), meta, path)
        except binascii.Error:
            _expect(False, path, "base64")
    elif kind in ("integer", "long"):
        _expect(isinstance(value, int) and not isinstance(value, bool), path, "an integer")
        _check_range(value, meta, path)
    elif kind in ("float", "double"):
        _expect(isinstance(value, int | float) and not isinstance(value, bool), path, "a number")
        _check_range(value, meta, path)
    elif kind == "boolean":
        _expect(isinstance(value, bool), path, "a boolean")
    else:
        raise TypeError(f"no rule for {kind}")


def _check_structure(value: Any, shape: Any, path: str) -> None:
    _expect(isinstance(value, dict), path, "a structure")
    for key, inner in value.items():
        _expect(key in shape.members, f"{path}.{key}", "a known member")
        check_shape(inner, shape.members[key], f"{path}.{key}")
    for key in shape.required_members:
        in_uri = shape.members[key].serialization.get("location") == "uri"
        _expect(in_uri or key in value, f"{path}.{key}", "to be given")
    _expect(not getattr(shape, "is_tagged_union", False) or len(value) == 1, path, "exactly one member")


def _check_range(number: float, meta: dict[str, Any], path: str) -> None:
    _expect(meta.get("min") is None or number >= meta["min"], path, f"at least {meta.get('min')}")
    _expect(meta.get("max") is None or number <= meta["max"], path, f"at most {meta.get('max')}")


def _expect(fits: bool, path: str, what: str) -> None:
    if not fits:
        raise AwsRefused(400, "ValidationException", f"Value at '{path.lstrip('.')}' failed: expected {what}")


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Write one message of an event stream."""
    head = b"".join(
        struct.pack(">B", len(name)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    message = prelude + head + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event_frame(name: str, payload: bytes) -> bytes:
    """Write an event."""
    return frame({":event-type": name, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception_frame(name: str, payload: bytes) -> bytes:
    """Write an exception inside a stream."""
    return frame({":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}, payload)
