"""What the typed paths do with fields and parameters that their contracts do not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from google.protobuf import descriptor_pb2

from gateway import bindings
from gateway.routes import DIALECTS
from services.common.rpc import rest
from tests.e2e.conftest import Gateway

DESCRIPTORS = Path(__file__).resolve().parents[2] / "build" / "moa.binpb"


def typed() -> Iterator[bindings.Binding]:
    """Return the bindings of typed methods."""
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    messages = {f".{file.package}.{message.name}": message for file in files.file for message in file.message_type}
    methods = {
        (f"{file.package}.{service.name}", method.name): method
        for file in files.file
        for service in file.service
        for method in service.method
    }
    for binding in bindings.read(DESCRIPTORS):
        method = methods[binding.service, binding.method]
        if binding.service in DIALECTS and rest.is_typed(method, messages[method.input_type]):
            yield binding


TYPED = list(typed())
BODIES = [binding for binding in TYPED if binding.takes_body]


def asked(gateway: Gateway, binding: bindings.Binding, *, query: str = "", body: bytes = b"{}") -> requests.Response:
    """Ask a binding with `1` for everything in its path."""
    path = re.sub(r"\{[^}]*\}", "1", binding.template)
    return requests.request(
        binding.verb,
        gateway.url + path + query,
        data=body if binding.takes_body else None,
        headers={"X-API-Key": gateway.key, "content-type": "application/json"},
        timeout=60,
    )


def told(answer: requests.Response) -> tuple[int, str, str]:
    # What may be said instead follows, where that is little.
    return answer.status_code, answer.json()["code"], answer.json()["detail"].partition("; use ")[0]


@pytest.mark.parametrize("binding", BODIES, ids=lambda binding: f"{binding.verb} {binding.template}")
def test_an_unknown_field_is_refused_by_name(gateway: Gateway, binding: bindings.Binding) -> None:
    """On every typed path with a body."""
    answer = asked(gateway, binding, body=b'{"no_such": 1}')
    assert told(answer) == (422, "invalid_field", "unknown field no_such")


def test_a_name_with_half_a_surrogate_pair_is_refused(gateway: Gateway) -> None:
    """It is a field that is not known, not a failure of the gateway."""
    for path in ("/account/keys", "/account/login", "/v1/tasks"):
        headers = {"X-API-Key": gateway.key, "content-type": "application/json"}
        answer = requests.post(gateway.url + path, data=b'{"\\ud83d": 1}', headers=headers, timeout=20)
        assert told(answer) == (422, "invalid_field", "unknown field ?")


@pytest.mark.parametrize("binding", TYPED, ids=lambda binding: f"{binding.verb} {binding.template}")
def test_an_unknown_parameter_is_refused_by_name(gateway: Gateway, binding: bindings.Binding) -> None:
    """On every typed path: a typo in a filter would otherwise list everything."""
    answer = asked(gateway, binding, query="?no_such=1")
    assert told(answer) == (422, "invalid_field", "unknown query parameter no_such")


def test_a_key_with_misspelt_scopes_is_not_made(gateway: Gateway) -> None:
    """Who meant to bind a key does not get one that may do everything."""
    before = made(gateway)
    bodies: list[dict[str, object]] = [
        {"scope": [{"model": "a"}]},
        {"scopes": [{"modle": "a"}]},
        {"scopes": "a"},
        {"scopes": {}},
    ]
    for body in bodies:
        assert gateway.post("/account/keys", body).status_code == 422
    assert made(gateway) == before


def made(gateway: Gateway) -> list[str]:
    """Return the ids of the keys that there are; when one was last used changes by itself."""
    return [key["key_id"] for key in gateway.get("/account/keys").json()["keys"]]


def test_a_body_says_what_a_query_does_not(gateway: Gateway) -> None:
    """Fields of a body cannot come by the query, and a field of the path has one value."""
    assert gateway.post("/account/keys?name=query", {}).status_code == 422
    answer = gateway.post("/v1/tasks/one/cancel", {"id": "two"})
    assert told(answer) == (422, "invalid_field", "id is not the one in the path")
    assert gateway.post("/v1/tasks/one/cancel", {"id": "one"}).status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("?page_size=2", 200),
        ("?pageSize=2&state=TASK_STATE_PENDING", 200),
        ("?state=1", 200),
        ("?state=77", 422),
        ("?state=pending", 200),
        ("?state=waiting", 422),
        ("?page_size=two", 422),
        ("?page_size=-1", 422),
        ("?page_size=", 422),
        ("?page_size=1&page_size=2", 422),
        ("?page_size=1&pageSize=1", 422),
        ("?page_token=%ff", 400),
    ],
)
def test_parameters_of_a_list(gateway: Gateway, query: str, status: int) -> None:
    """Each is read as its type says, once."""
    assert gateway.get("/v1/tasks" + query).status_code == status


@pytest.mark.parametrize(
    "query",
    ["/admin/accounts?query=%00", "/admin/audit?account_id=%00", "/v1/webhooks/deliveries?task_id=%00"],
)
def test_a_text_that_cannot_be_stored_is_refused(gateway: Gateway, query: str) -> None:
    """PostgreSQL holds no NUL: the caller is told, and nothing is called a fault of ours."""
    answer = gateway.get(query)
    assert told(answer) == (
        422,
        "invalid_field",
        "a text holds the character NUL; leave it out",
    )


def test_a_number_of_a_stream_of_events_is_read_by_the_service(gateway: Gateway) -> None:
    """One that is none is refused by name, as of a list; then the task is looked for."""
    answer = gateway.get("/v1/tasks/one/events?after_sequence=x")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert answer.json()["detail"].startswith("after_sequence must be a whole number")
    assert gateway.get("/v1/tasks/one/events?afterSequence=3").status_code == 404
    download = gateway.get("/account/spend.csv?of_team=perhaps")
    assert (download.status_code, download.json()["detail"]) == (422, "of_team must be true or false")
