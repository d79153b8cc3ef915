"""Whatever the OpenAPI document allows or forbids is answered as it says: schemathesis against the running gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.build.openapi import document
from tests import stacks
from tests.e2e.conftest import Gateway
from tests.laws import tries

DESCRIPTORS = Path(__file__).resolve().parents[2] / "build" / "moa.binpb"
SCHEMA = schemathesis.openapi.from_dict(document(DESCRIPTORS.read_bytes()))
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of its own: strangers' accounts, tasks and settings are made in it."""
    with stacks.gateway(tmp_path_factory.mktemp("described")) as stack:
        yield Gateway(stack)


def test_a_desk_can_be_made_without_shops(described: Gateway) -> None:
    """Nobody configured the shopping search here: that is told, and the gateway is well."""
    answer = requests.get(described.url + "/healthcheck", timeout=20)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    others = {name: part["status"] for name, part in answer.json()["dependencies"].items() if part["status"] != "ok"}
    assert others == {"shopping": "not_configured"}


@SCHEMA.parametrize()
@settings(
    max_examples=tries(5),
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # the explicit phase adds 12,000 cases of "coverage": two minutes
    suppress_health_check=list(HealthCheck),
)
def test_every_operation(case: schemathesis.Case[Any], described: Gateway) -> None:
    """Good and bad requests alike: no 5xx, no status, media type or body that the document does not tell."""
    checks = CHECKS if "503" in case.operation.definition.raw["responses"] else [not_a_server_error, *CHECKS]
    case.call_and_validate(base_url=described.url, headers={"X-API-Key": described.key}, checks=checks, timeout=20)
