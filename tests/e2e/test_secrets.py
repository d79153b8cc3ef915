"""Credentials that callers send are nowhere afterwards: not in logs, metrics, traces, tables, files, or answers."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import psycopg
import pytest
import requests
import urllib3
from psycopg import sql

from deploy.local.ports import Ports
from tests import stacks
from tests.e2e.conftest import Gateway
from tests.e2e.test_accounts import Person
from tests.e2e.test_byok import files_below
from tests.e2e.test_native import CHAT, DRAW
from tests.emulators.collector import Collector, collecting

VERBS = ("get", "post", "put", "patch", "delete", "head")
GENERATIONS: tuple[tuple[str, Any], ...] = (
    ("/generate/text", CHAT),
    ("/generate/text", {**CHAT, "stream": True}),
    ("/create/image", {**DRAW, "num_inference_steps": 1}),
    ("/v1/chat/completions", {"model": "moa-tiny-chat", "messages": CHAT["messages"]}),
    ("/v1beta/models/moa-tiny-chat:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    ("/v1/tasks", {"model": "moa-tiny-image", "prompt": "a red circle"}),
)


@dataclass(frozen=True)
class Canary:
    """Somebody's credentials, each of which is nowhere else."""

    key: str
    """A key that works."""
    session: str
    """A session's token."""
    password: str
    wrong_key: str
    """A key that nobody has."""

    @cached_property
    def traces(self) -> dict[str, bytes]:
        """Return what must not be found. The first letters of a key are its name, shown to its owner."""
        found: dict[str, bytes] = {}
        for name in ("key", "session", "password", "wrong_key"):
            secret = getattr(self, name)[-24:].encode()
            found |= {name: secret, f"{name} in hex": secret.hex().encode()}
            # Whatever comes before it, base64 has one of three forms of it.
            for shift in range(3):
                coded = base64.b64encode(b"\0" * shift + secret)
                found[f"{name} in base64 at {shift}"] = coded[4 if shift else 0 : -4]
        return found

    def check(self, where: str, content: bytes) -> None:
        """Fail when one of them is in `content`."""
        low = content.lower()
        for name, trace in self.traces.items():
            assert trace not in content, f"the {name} is in {where}"
            assert "hex" not in name or trace not in low, f"the {name} is in {where}"


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """What traces are told to, and its address."""
    address = f"127.0.0.1:{Ports().any()}"
    with collecting(address) as running:
        yield running, address


@pytest.fixture(scope="module")
def haunted(tmp_path_factory: pytest.TempPathFactory, collector: tuple[Collector, str]) -> Iterator[Gateway]:
    """A gateway whose every file is searched."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector[1]}",
    }
    with stacks.gateway(tmp_path_factory.mktemp("haunted"), environment=environment) as stack:
        yield Gateway(stack)


def places(secret: str) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Return the headers and queries in which callers send a credential, or may by mistake."""
    yield {"X-API-Key": secret}, {}
    yield {"Authorization": f"Bearer {secret}"}, {}
    yield {"x-goog-api-key": secret}, {}
    yield {}, {"key": secret}
    # By mistake:
    yield {"Authorization": secret, "Cookie": f"key={secret}", "api-key": secret}, {}
    yield {"Authorization": "Basic " + base64.b64encode(f"me:{secret}".encode()).decode()}, {"api_key": secret}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Return each operation's verb, path, and body's schema."""
    for path, item in document["paths"].items():
        for verb in VERBS:
            if verb in item:
                content = item[verb].get("requestBody", {}).get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                name = schema.get("$ref", "").rpartition("/")[2]
                yield verb, path, document["components"]["schemas"].get(name, schema)


def send_everywhere(gateway: Gateway, canary: Canary) -> tuple[int, int]:
    """Send each credential in each place to each operation; no answer may repeat it.

    Give how many were let in (though some asked for what is not there), and how many were not.
    """
    document = requests.get(gateway.url + "/openapi.json", timeout=20).json()
    # Logging out ends the session: last.
    listed = sorted(operations(document), key=lambda operation: operation[1] == "/account/logout")
    assert len(listed) > 50
    taken = refused = 0
    # Thousands of requests: a session of requests takes twice the CPU for each.
    with urllib3.PoolManager(retries=False) as pool:
        for verb, path, schema in listed:
            url = gateway.url + re.sub(r"{[^}]*}", "none", path)
            body = {name: canary.password for name in schema.get("properties", {}) if "password" in name}
            if body:
                body["email"] = f"{uuid4().hex}@example.com"
            for secret in (canary.key, canary.session, canary.password, canary.wrong_key):
                for headers, query in places(secret):
                    given: dict[str, Any] = {"json": body} if verb != "get" else {}
                    asked = f"{url}?{urlencode(query)}" if query else url
                    answer = pool.request(verb.upper(), asked, headers=headers, timeout=30, **given)
                    told = repr(answer.headers).encode() + answer.data
                    if answer.status == 200 and path in ("/account/signup", "/account/login"):
                        told = b""  # a new session's token is told on purpose
                    canary.check(f"the answer to {verb} {path}", told)
                    shut_out = answer.status in (401, 403, 429)
                    taken, refused = taken + (not shut_out), refused + shut_out
    return taken, refused


def texts_of_database(url: str) -> Iterator[tuple[str, bytes]]:
    """Return every row of every table as text; bytes are in hexadecimal digits."""
    with psycopg.connect(url) as link:
        tables = link.execute(
            "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
            " and table_schema not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table))
            for (row,) in link.execute(query):
                yield f"table {table}", row.encode()


@pytest.mark.timeout(300)  # 5,000 requests, slower where the cores are shared
def test_credentials_are_nowhere(haunted: Gateway, collector: tuple[Collector, str]) -> None:
    """A key, a session, a password and a wrong key, sent through every operation in every place, are afterwards in no
    answer, log, metric, trace, table or file, neither as they are nor in hex or base64. The search is tried on what
    must be found: the mail address in the tables, a request's id in the logs and the traces."""
    person = Person(haunted)
    password = f"pw{uuid4().hex}"
    login = {"email": f"{uuid4().hex}@example.com", "password": password}
    for path, body in (("/account/signup", {**login, "name": "canary"}), ("/account/login", login)):
        assert requests.post(haunted.url + path, json=body, timeout=20).status_code == 200
    canary = Canary(person.key, person.session, password, f"moa-{uuid4().hex}{uuid4().hex}")
    known = ""
    for path, body in GENERATIONS:
        answer = requests.post(haunted.url + path, json=body, headers={"X-API-Key": canary.key}, timeout=60)
        assert answer.status_code < 500, (path, answer.text)
        canary.check(f"the answer to {path}", repr(answer.headers).encode() + answer.content)
        known = answer.headers["x-request-id"]
    for body in ({"email": person.email, "password": canary.password}, {"email": canary.password, "password": "x"}):
        requests.post(haunted.url + "/account/login", json=body, timeout=20)
    taken, refused = send_everywhere(haunted, canary)
    assert taken > 100
    assert refused > 1000

    found = b""
    for where, row in texts_of_database(haunted.stack.database_url):
        canary.check(where, row)
        found += row
    assert person.email.encode() in found
    assert {"edge", "auth", "router", "text", "image", "inference", "tasks", "desk"} <= set(haunted.stack.names)
    for name in haunted.stack.names:
        canary.check(f"the metrics of {name}", haunted.metrics(name).encode())
    traces = b"".join(collector[0].raw)
    canary.check("the traces", traces)
    assert known.encode() in traces
    logs: list[Path] = []
    for file, content in files_below(haunted.stack.root):
        if file.is_symlink():
            continue
        canary.check(str(file.relative_to(haunted.stack.root)), content)
        logs += [file] if known.encode() in content else []
    assert {haunted.stack.log("edge"), haunted.stack.log("tasks")} <= set(logs)
