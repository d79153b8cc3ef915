"""Where AWS credentials come from in production: the container's endpoint, STS, and the instance's metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from aiohttp import web

from tests.emulators.aws import Temporary
from tests.emulators.base import Emulator

CONTAINER_TOKEN = "container-authorization"
ROLE = "arn:aws:iam::123456789012:role/moa"
IDENTITY_TOKEN = "a.signed.identity"
_STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/moa/s</Arn>
<AssumedRoleId>AROAEXAMPLE:s</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>{access}</AccessKeyId>
<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken><Expiration>{ends}</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"""


class AwsIdentityEmulator(Emulator):
    """`GET /container`, `POST /sts`, and the metadata service's `/latest/…`. What it issues is in `issued`."""

    def __init__(self, life_s: float = 3600) -> None:
        super().__init__()
        self.life_s = life_s
        """How long what is issued from now on is good."""
        self.down = False
        self.issued: dict[str, Temporary] = {}
        """By access key."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        metadata = "/latest/meta-data/iam/security-credentials"
        return [
            web.get("/container", self._container),
            web.post("/sts/", self._sts),
            web.put("/latest/api/token", self._session),
            web.get(f"{metadata}/", self._role_name),
            web.get(f"{metadata}/moa-role", self._instance),
        ]

    def _issue(self) -> Temporary:
        number = len(self.issued) + 1
        ends = datetime.now(UTC) + timedelta(seconds=self.life_s)
        made = Temporary(f"ASIATEMPORARY{number}", f"secret/{number}+x", f"token-{number}//==", ends)
        self.issued[made.access] = made
        return made

    def _issued_json(self, **more: str) -> web.Response:
        made = self._issue()
        ends = made.ends.strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"AccessKeyId": made.access, "SecretAccessKey": made.secret, "Token": made.token, "Expiration": ends}
        return web.Response(body=json.dumps({**body, **more}).encode(), content_type="application/json")

    def _refused(self, status: int, why: str) -> web.Response:
        self.refused.append((status, why))
        return web.json_response({"code": why, "message": why}, status=status)

    async def _container(self, request: web.Request) -> web.Response:
        if self.down:
            return web.json_response({"code": "down", "message": "down"}, status=400)
        if request.headers.get("Authorization") != CONTAINER_TOKEN:
            return self._refused(401, "authorization")
        return self._issued_json()

    async def _sts(self, request: web.Request) -> web.Response:
        form = {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}
        if (form["Action"], form["RoleArn"]) != ("AssumeRoleWithWebIdentity", ROLE):
            return self._refused(400, "role")
        if form["WebIdentityToken"] != IDENTITY_TOKEN:
            return self._refused(400, "identity")
        made = self._issue()
        ends = made.ends.strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = _STS.format(access=made.access, secret=made.secret, token=made.token, ends=ends)
        return web.Response(text=answer, content_type="text/xml")

    async def _session(self, request: web.Request) -> web.Response:
        return web.Response(text="metadata-session")

    def _in_session(self, request: web.Request) -> bool:
        return request.headers.get("x-aws-ec2-metadata-token") == "metadata-session"

    async def _role_name(self, request: web.Request) -> web.Response:
        return web.Response(text="moa-role") if self._in_session(request) else self._refused(401, "session")

    async def _instance(self, request: web.Request) -> web.Response:
        if not self._in_session(request):
            return self._refused(401, "session")
        return self._issued_json(Code="Success", Type="AWS-HMAC", LastUpdated="2026-01-01T00:00:00Z")
