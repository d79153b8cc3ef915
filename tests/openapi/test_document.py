"""The OpenAPI document: valid, whole, and true of real answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from openapi_spec_validator import validate

from deploy.build.openapi import document
from gateway import bindings
from gateway.routes import DIALECTS
from services.common.errors import BY_WORD, Cancelled
from tests.e2e import browser
from tests.router.conftest import edge_port, played, rig, site, url
from tests.router.rig import KEY, Played, picture

__all__ = ["edge_port", "played", "rig", "site", "url"]

DESCRIPTORS = Path(__file__).resolve().parents[2] / "build" / "moa.binpb"
IMAGE = base64.b64encode(picture()).decode()
HI = [{"role": "user", "content": "x"}]
CONTENTS = [{"parts": [{"text": "x"}]}]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(DESCRIPTORS.read_bytes())


def test_it_is_openapi_3_1(made: dict[str, Any]) -> None:
    """The document follows its own specification, and every reference leads somewhere."""
    validate(made)
    assert made["openapi"] == "3.1.0"
    names = [operation["operationId"] for item in made["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def test_reports_are_files_and_forgotten_passwords_need_no_key(made: dict[str, Any]) -> None:
    """What answers with comma-separated values says so; who forgot a password has nothing to send."""
    for path in ("/account/spend.csv", "/admin/spend.csv"):
        assert made["paths"][path]["get"]["responses"]["2XX"]["content"] == {"text/csv": {"schema": {"type": "string"}}}
    for path in ("/account/password-reset", "/account/password-reset/confirm"):
        assert made["paths"][path]["post"]["security"] == made["paths"]["/account/login"]["post"]["security"]
    assert made["paths"]["/account/second-factor"]["post"]["security"]


def test_the_document_takes_what_the_gateway_takes(made: dict[str, Any]) -> None:
    """Dollars as texts or numbers, a team's rules as a list or an object; and says what redirects."""
    limits = made["components"]["schemas"]["moa.account.v1.Limits"]["properties"]
    assert limits["usd_a_month"]["type"] == ["string", "number"]
    change = made["paths"]["/account/teams/{team_id}"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    one, other = change["properties"]["rules"]["anyOf"]
    assert one == {"$ref": "#/components/schemas/moa.account.v1.Rules"}
    assert other["items"] == {"$ref": "#/components/schemas/moa.quota.v1.Rule"}
    for path in ("/auth/oidc/start", "/auth/oidc/callback"):
        assert list(made["paths"][path]["get"]["responses"]) == ["302", "4XX", "5XX"]
        assert made["paths"][path]["get"]["security"] == []


def test_limits_of_the_contracts_are_ranges(made: dict[str, Any]) -> None:
    """Bodies of dialects and messages of contracts tell the ranges that the contracts' options declare."""
    schemas = made["components"]["schemas"]
    # Servers of OpenAI's protocol write -1 for no bound.
    for body, name, least in (("ChatBody", "top_k", -1), ("GenerationConfig", "topK", 1), ("TextBody", "top_k", 1)):
        number = schemas[body]["properties"][name]["anyOf"][0]
        assert (number["minimum"], number["maximum"]) == (least, 2**31 - 1)
    diffusion = schemas["moa.image.v1.Diffusion"]["properties"]
    assert (diffusion["steps"]["minimum"], diffusion["steps"]["maximum"]) == (1, 150)
    assert "dpm++" in diffusion["scheduler"]["enum"]
    key = made["paths"]["/account/keys"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert (key["name"]["maxLength"], key["scopes"]["maxItems"]) == (100, 100)


def test_every_binding_is_described(made: dict[str, Any]) -> None:
    """What the edge serves is what the document tells, no more and no less, each with a sentence."""
    served = {(b.template, b.verb.lower()) for b in bindings.read(DESCRIPTORS) if b.service in DIALECTS}
    told = {(path, verb) for path, item in made["paths"].items() for verb in item}
    assert len(told) == len(served)
    for item in made["paths"].values():
        for operation in item.values():
            assert operation["summary"], operation["operationId"]


def test_every_paid_post_takes_an_idempotency_key(made: dict[str, Any]) -> None:
    """The header, what it is refused by, and the mark of an answer that was given before; nothing free has it."""
    taking = {
        operation["operationId"].partition("_")[2].rstrip("_0123456789"): operation
        for item in made["paths"].values()
        for operation in item.values()
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ()))
    }
    tasks = {"CreateTask", "CreateImageTask", "CreateDeskTask", "CreatePrediction", "CreateVersionPrediction"}
    assert taking.keys() - tasks == {
        "GenerateText",
        "CreateImage",
        "EditImage",
        "CreateChatCompletion",
        "CreateMessage",
        "CreateResponse",
        "CreateEmbedding",
        "EmbedContent",
        "BatchEmbedContents",
        "CreateImageEdit",
        "CreateImageVariation",
        "GenerateContent",
        "StreamGenerateContent",
    }
    for name, operation in taking.items():
        assert "422" in operation["responses"], name
        assert ("409" in operation["responses"]) == (name not in tasks), name
        assert ("idempotent-replayed" in operation["responses"]["2XX"].get("headers", {})) == (name not in tasks), name


CALLS: list[tuple[str, str, Any]] = [
    ("get", "/providers", None),
    ("get", "/models/{provider}", None),
    ("post", "/generate/text", {"model_id": "smart", "messages": HI}),
    ("post", "/create/image", {"model_id": "gemini-2.5-flash-image", "prompt": "x"}),
    ("post", "/generate/image", {"model_id": "smart", "prompt": "x", "image_data": IMAGE}),
    ("post", "/v1/chat/completions", {"model": "smart", "messages": HI}),
    ("post", "/v1/responses", {"model": "smart", "input": "x"}),
    ("post", "/v1/responses/input_tokens", {"model": "smart", "input": "x"}),
    ("post", "/v1/embeddings", {"model": "encoder", "input": "x"}),
    ("post", "/v1/messages", {"model": "smart", "messages": HI}),
    ("post", "/v1/messages/count_tokens", {"model": "smart", "messages": HI}),
    ("post", "/v1/images/generations", {"prompt": "x"}),
    ("post", "/v1/images/edits", {"prompt": "x", "image": IMAGE}),
    ("get", "/v1/models", None),
    ("get", "/v1/models/{model}", None),
    ("get", "/v1beta/models", None),
    ("get", "/v1beta/models/{model}", None),
    ("post", "/v1beta/models/{model}:generateContent", {"contents": CONTENTS}),
    ("post", "/v1beta/models/{model}:streamGenerateContent", {"contents": CONTENTS}),
    ("post", "/v1beta/models/{model}:countTokens", {"contents": CONTENTS}),
    ("post", "/v1beta/models/{model}:embedContent", {"content": CONTENTS[0]}),
    ("post", "/v1beta/models/{model}:batchEmbedContents", {"requests": [{"content": CONTENTS[0]}]}),
]
NAMES = [f"{verb} {path}" for verb, path, _ in CALLS]


def check(made: dict[str, Any], schema: Any, value: Any) -> None:
    whole = {"components": made["components"], **schema}
    jsonschema.Draft202012Validator(whole).validate(value)


@pytest.mark.parametrize(("verb", "path", "body"), CALLS, ids=NAMES)
def test_answers_are_as_told(made: dict[str, Any], url: str, played: Played, verb: str, path: str, body: Any) -> None:
    """The request fits the document, and the answer that comes fits it too."""
    operation = made["paths"][path][verb]
    if body is not None:
        check(made, operation["requestBody"]["content"]["application/json"]["schema"], body)
    model = "encoder" if "mbedContent" in path else "smart"
    address = url + path.replace("{model}", model).replace("{provider}", "p-text")
    got = requests.request(verb, address, json=body, headers={"x-api-key": KEY}, timeout=60)
    assert got.status_code == 200, got.text
    check(made, operation["responses"]["2XX"]["content"]["application/json"]["schema"], json.loads(got.content))


@pytest.mark.parametrize("path", ["/generate/text", "/v1/chat/completions", "/v1beta/models/{model}:generateContent"])
def test_failures_are_as_told(made: dict[str, Any], url: str, played: Played, path: str) -> None:
    """Every reason's body fits the document."""
    body = next(body for _, each, body in CALLS if each == path)
    schema = made["paths"][path]["post"]["responses"]["4XX"]["content"]["application/json"]["schema"]
    for kind in BY_WORD.values():
        if kind is Cancelled:
            continue
        played.refusal = kind("no", param="model")
        address = url + path.replace("{model}", "smart")
        got = requests.post(address, json=body, headers={"x-api-key": KEY}, timeout=60)
        assert got.status_code >= 400
        check(made, schema, got.json())


def test_it_is_served_with_its_page(url: str) -> None:
    """`/openapi.json` is the document, `/docs` the page that shows it; neither needs a key or another host."""
    got = requests.get(f"{url}/openapi.json", timeout=60)
    assert got.headers["content-type"] == "application/json"
    assert got.json()["openapi"] == "3.1.0"
    page = requests.get(f"{url}/docs", timeout=60)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("docs.js", "swagger-ui.css", "swagger-ui-bundle.js"):
        assert name in page.text
        assert requests.get(f"{url}/{name}", timeout=60).status_code == 200
    assert "https://" not in page.text


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
async def test_the_page_shows_every_operation(made: dict[str, Any], url: str) -> None:
    """A reader sees all of them, opens one and finds its body's fields, with nothing fetched from elsewhere."""
    count = sum(len(item) for item in made["paths"].values())
    opened = "document.querySelector('[id$=CreateChatCompletion]')"
    click = f"(each => each !== null && (each.querySelector('.opblock-summary-control').click(), true))({opened})"
    async with browser.browser(f"{url}/docs") as page:
        await page.until("document.querySelector('.opblock') !== null")
        found: set[str] = set()
        example = text = ""
        # Of a long list only what is in view is there: it is opened where it is first seen.
        while len(found) < count:
            found |= set(await page.until("[...document.querySelectorAll('.opblock')].map(each => each.id)"))
            if not example and await page.run(click):
                example = await page.until(f"{opened}?.querySelector('textarea')?.value")
                text = await page.run(f"{opened}.innerText")
            moved = await page.run("(y => (scrollBy(0, innerHeight * 0.9), scrollY > y))(scrollY)")
            await page.run("new Promise(then => requestAnimationFrame(() => requestAnimationFrame(then)))")
            assert moved or len(found) == count, found
        assert "messages" in json.loads(example)
        for words in ("/v1/chat/completions", "Request body", "Execute", "4XX"):
            assert words in text
        assert page.errors == []
