"""The errors of Google's Gemini API. Its names of requests' fields stand beside the bodies, in the router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.api import annotations_pb2

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from moa.router.v1 import google_service_pb2
from services.common.dialects.shape import BAD_REQUEST, CODES, FIELD, MESSAGE, STATUS, Dialect
from services.common.errors import HTTP_STATUS

_GOOGLE_STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    410: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The canonical code of each status (google.rpc.Code's HTTP mapping, and the nearest for the rest)."""

_IN_GOOGLE: Final[Mapping[Reason.ValueType, int]] = dict.fromkeys(BAD_REQUEST, 400)

_ASK: Final = "use POST /v1beta/models/{model}:generateContent"
VERBS: Final[Mapping[str, str]] = {
    method.name: verb
    for method in google_service_pb2.DESCRIPTOR.services_by_name["GoogleService"].methods
    if (verb := method.GetOptions().Extensions[annotations_pb2.http].post.rpartition(":")[2])
}
"""What stands behind a model's path, by the contract's name of the method."""
_METHODS: Final = " and ".join((", ".join(list(VERBS.values())[:-1]), list(VERBS.values())[-1]))
_INLINE: Final = "files are sent inside a request here: inlineData, or fileData with an https link"
_LISTED: Final = "GET /v1beta/models lists what there is"

_SHARED: Final = ("/files", "/batches", "/models")
"""Paths that OpenAI's API has on `/v1` too."""

_UNSERVED: Final[Mapping[str, str]] = {
    "/v1beta/models": f"a model's methods are {_METHODS}",
    "/v1/models": f"a model's methods are {_METHODS}",
    "/v1beta/cachedContents": "contents are not kept here; send them with each request",
    "/v1beta/files": _INLINE,
    "/upload": _INLINE,
    "/v1beta/media": _INLINE,
    "/v1beta/interactions": f"conversations are not kept here; {_ASK} with all contents",
    "/v1beta/agents": f"no agent runs here; {_ASK} with tools",
    "/v1beta/tunedModels": f"models are not tuned here; {_LISTED}",
    "/v1beta/tuningJobs": f"models are not tuned here; {_LISTED}",
    "/v1beta/batches": "there are no batches of requests here; send them one by one",
    "/v1beta/batchPredictionJobs": "there are no batches of requests here; send them one by one",
    "/v1beta/operations": f"nothing goes on behind an answer here; {_ASK}",
    "/v1beta/corpora": "texts are not kept here; send them as contents",
    "/v1beta/fileSearchStores": "texts are not kept here; send them as contents",
    "/v1beta/ragStores": "texts are not kept here; send them as contents",
    "/v1beta/authTokens": "POST /account/keys makes keys with limits and an end",
}

GOOGLE: Final = Dialect(
    name="google",
    services=("moa.router.v1.GoogleService",),
    large=("moa.router.v1.GoogleService",),
    strays=("/v1beta/", "/v1beta1/", "/v1alpha/", "/upload/"),
    listed="GET /v1beta/models",
    header="x-goog-api-key",
    unserved={
        **_UNSERVED,
        **{path.replace("/v1beta/", "/v1alpha/"): step for path, step in _UNSERVED.items()},
        **{path.replace("/v1beta/", "/v1/"): step for path, step in _UNSERVED.items() if not path.endswith(_SHARED)},
    },
    envelope={
        "error": {
            "code": STATUS,
            "message": MESSAGE,
            "status": "$status_word",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "$info",
                    "domain": "moa",
                    "metadata": {"field": FIELD},
                }
            ],
        }
    },
    statuses=_IN_GOOGLE,
    words={
        "status_word": {r: _GOOGLE_STATUS[_IN_GOOGLE.get(r, status)] for r, status in HTTP_STATUS.items()},
        "info": {
            **{reason: code.upper() for reason, code in CODES.items()},
            # The constants that Google's own API answers with.
            error_pb2.REASON_UNAUTHENTICATED: "API_KEY_INVALID",
            error_pb2.REASON_RATE_LIMITED: "RATE_LIMIT_EXCEEDED",
            error_pb2.REASON_UPSTREAM_RATE_LIMITED: "RATE_LIMIT_EXCEEDED",
        },
    },
)
"""Google's: `{"error": {"code", "message", "status", "details"}}`, a `google.rpc.Status` as its REST APIs print it."""
