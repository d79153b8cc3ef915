"""Azure OpenAI, as strict as the real one: deployments, API versions, keys, Entra tokens, content filter results.

https://learn.microsoft.com/azure/ai-services/openai/reference
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs

from aiohttp import web

from tests.emulators.openai import MODELS, REFUSALS, Refused, check_chat, event, json_of
from tests.emulators.openai_responses import ResponsesEmulator
from tests.emulators.openai_responses import check as check_response

KEYS = frozenset({"azure-good"})
API_VERSIONS = frozenset({"2024-10-21", "2024-06-01"})
DEPLOYMENTS = {"chat-deployment": "gpt-4o-mini", "thinking-deployment": "o4-mini"}
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT_ID = "66666666-7777-8888-9999-000000000000"
CLIENT_SECRET = "an-application-secret"
IDENTITY_HEADER = "the-app-service-secret"
_RESOURCE = "https://cognitiveservices.azure.com"

_FILTER = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}


class AzureEmulator(ResponsesEmulator):
    """`/openai/deployments/{deployment}/chat/completions`, `/openai/v1/responses`, lists, and the tenant's tokens."""

    refusals: ClassVar[Mapping[str, tuple[int, dict[str, Any]]]] = {
        **REFUSALS,
        "upstream_auth": (401, {"code": "401"}),
        "model_not_found": (404, {"code": "DeploymentNotFound"}),
        "content_policy": (
            400,
            {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}, "status": 400},
        ),
        "upstream_rate_limited": (429, {"code": "429"}),
    }

    def __init__(self) -> None:
        super().__init__()
        self.tokens_given = 0
        self.tokens: set[str] = set()
        self.token_life_s = 3600
        self.federated = "the-first-federated-token"
        """What a workload identity proves itself with."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            web.post("/openai/deployments/{deployment}/chat/completions", self.completions),
            web.post("/openai/v1/responses", self.responses),
            web.get("/openai/models", self._models_of_resource),
            web.get("/openai/deployments", self._deployments),
            web.post("/{tenant}/oauth2/v2.0/token", self._token),
            web.get("/metadata/identity/oauth2/token", self._instance_token),
            web.get("/msi/token", self._app_service_token),
        ]

    def check_key(self, request: web.Request) -> None:
        """Raise Refused unless the request names a good version and brings a key or a token."""
        # Next-generation paths have no versions.
        versions = {None} if request.path.startswith("/openai/v1/") else API_VERSIONS
        if request.query.get("api-version") not in versions:
            raise Refused(404, "Resource not found", kind="", code="404")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if request.headers.get("api-key") not in KEYS and not (scheme == "Bearer" and token in self.tokens):
            raise Refused(401, "Access denied due to invalid subscription key.", kind="", code="401")

    async def chat_of(self, request: web.Request) -> dict[str, Any]:
        """Return the request's body as OpenAI would see it: the deployment says which model."""
        deployment = request.match_info["deployment"]
        if deployment not in DEPLOYMENTS:
            words = "The API deployment for this resource does not exist."
            raise Refused(404, words, kind="", code="DeploymentNotFound")
        body = await json_of(request)
        if not isinstance(body, dict):
            raise Refused(400, "The body must be an object.", kind="invalid_request_error")
        body = {**body, "model": DEPLOYMENTS[deployment]}
        check_chat(body)
        return body

    async def response_of(self, request: web.Request) -> dict[str, Any]:
        """Return the request's body as OpenAI would see it: its model is a deployment."""
        self.check_key(request)
        body = await json_of(request)
        if not isinstance(body, dict) or body.get("model") not in DEPLOYMENTS:
            words = "The API deployment for this resource does not exist."
            raise Refused(404, words, kind="", code="DeploymentNotFound")
        body = {**body, "model": DEPLOYMENTS[body["model"]]}
        check_response(body, models=MODELS)
        return body

    def preamble(self) -> list[bytes]:
        """Say what the content filter thought of the prompt, before anything else."""
        results = [{"prompt_index": 0, "content_filter_results": _FILTER}]
        return [event({"id": "", "object": "", "choices": [], "prompt_filter_results": results})]

    async def _deployments(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("api-version") != "2023-03-15-preview" or request.headers.get("api-key") not in KEYS:
            return self.refusal(Refused(401, "Access denied due to invalid subscription key.", kind="", code="401"))
        entries = [
            {"id": "my-chat", "model": "gpt-4o-mini", "status": "succeeded", "created_at": 7, "object": "deployment"},
            {"id": "my-vectors", "model": "text-embedding-3-small", "status": "succeeded", "object": "deployment"},
            {"id": "my-next", "model": "gpt-5", "status": "creating", "object": "deployment"},
        ]
        return web.json_response({"data": entries, "object": "list"})

    async def _models_of_resource(self, request: web.Request) -> web.StreamResponse:
        try:
            self.check_key(request)
        except Refused as refused:
            return self.refusal(refused)
        return web.json_response({"data": [{"id": "gpt-4o-mini"}]})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}
        common = {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "scope": f"{_RESOURCE}/.default",
        }
        assertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        good = (
            {**common, "client_secret": CLIENT_SECRET},
            {**common, "client_assertion_type": assertion, "client_assertion": self.federated},
        )
        if request.match_info["tenant"] != TENANT or form not in good:
            return web.Response(status=401, body=json.dumps({"error": "invalid_client"}).encode())
        return web.json_response({"token_type": "Bearer", "expires_in": self.token_life_s, **self._given()})

    def _given(self) -> dict[str, str]:
        self.tokens_given += 1
        token = f"token-{self.tokens_given}"
        self.tokens.add(token)
        return {"access_token": token}

    async def _instance_token(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        wanted = {"api-version": "2018-02-01", "resource": _RESOURCE}
        if request.headers.get("Metadata") != "true" or query not in (wanted, {**wanted, "client_id": CLIENT_ID}):
            return web.json_response({"error": "invalid_request"}, status=400)
        # Numbers come as strings here.
        return web.json_response({"expires_in": str(self.token_life_s), "resource": _RESOURCE, **self._given()})

    async def _app_service_token(self, request: web.Request) -> web.StreamResponse:
        wanted = {"api-version": "2019-08-01", "resource": _RESOURCE}
        if request.headers.get("X-IDENTITY-HEADER") != IDENTITY_HEADER or dict(request.query) != wanted:
            return web.json_response({"statusCode": 401, "message": "no"}, status=401)
        return web.json_response({"expires_on": str(int(time.time()) + self.token_life_s), **self._given()})
