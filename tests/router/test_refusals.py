"""To whom a refusal is told, and in whose terms."""

from __future__ import annotations

import pytest
import requests

from services.common.errors import InvalidField
from tests.dialects import SPOKEN
from tests.router.rig import KEY, OTHER_KEY, Played

BROKEN = {
    "/generate/text": {"messages": []},
    "/create/image": {"prompt": 7},
    "/v1/chat/completions": {"model": "m", "messages": [], "typo": 1},
    "/v1/images/generations": {"prompt": "x", "n": 1000},
    "/v1beta/models/m:generateContent": {"contents": "not a list"},
}
"""A body that no handler takes, by path."""


@pytest.mark.parametrize("path", BROKEN)
@pytest.mark.parametrize("key", ["", "moa-unknown"])
def test_a_stranger_is_told_of_the_key_first(url: str, path: str, key: str) -> None:
    """Whatever else is wrong with a request, without a valid key the answer is 401."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    assert requests.post(url + path, json=BROKEN[path], headers=headers, timeout=20).status_code == 401


@pytest.mark.parametrize("path", BROKEN)
def test_whoever_sends_two_keys_is_told_of_them_first(url: str, path: str) -> None:
    """Whatever else is wrong, here a key of idempotency that is too long, nobody can tell who asks: 401, no 500."""
    headers = {"Authorization": f"Bearer {KEY}", "X-API-Key": OTHER_KEY, "Idempotency-Key": "k" * 256}
    answer = requests.post(url + path, json=BROKEN[path], headers=headers, timeout=20)
    assert (answer.status_code, "two different API keys" in answer.text) == (401, True)


@pytest.mark.parametrize("path", BROKEN)
def test_a_known_caller_is_told_what_is_wrong(url: str, path: str) -> None:
    """The same bodies with a valid key are bad requests."""
    answer = requests.post(url + path, json=BROKEN[path], headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/images/generations", {"model": "gemini-2.5-flash-image", "prompt": "x", "size": "4x4"}, "size"),
        (
            "/v1beta/models/gemini-2.5-flash-image:generateContent",
            {
                "contents": [{"parts": [{"text": "x"}]}],
                "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"imageSize": "1K"}},
            },
            "generationConfig.imageConfig.imageSize",
        ),
    ],
)
def test_a_field_is_named_as_the_caller_wrote_it(
    url: str, played: Played, path: str, body: dict[str, object], param: str
) -> None:
    """What the contract calls `width` is told under the dialect's own name."""
    played.refusal = InvalidField("width must be a multiple of 8 from 64 to 512", param="width")
    error = requests.post(url + path, json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=20).json()["error"]
    assert (error.get("param") or error["details"][0]["metadata"]["field"]) == param


@pytest.mark.parametrize(
    ("path", "body", "step"),
    [
        ("/v1/chat/completions", {"model": "smrt", "messages": [{"role": "user", "content": "x"}]}, "use smart"),
        (
            "/v1/chat/completions",
            {"model": "xyzzy", "messages": [{"role": "user", "content": "x"}]},
            "GET /v1/models lists",
        ),
        (
            "/v1beta/models/xyzzy:generateContent",
            {"contents": [{"parts": [{"text": "x"}]}]},
            "GET /v1beta/models lists",
        ),
        (
            "/generate/text",
            {"model_id": "xyzzy", "messages": [{"role": "user", "content": "x"}]},
            "GET /models/{provider} lists",
        ),
    ],
)
def test_an_unknown_model_is_told_those_of_the_caller(url: str, path: str, body: dict[str, object], step: str) -> None:
    """The nearest names that its key may use; where none is near, what lists them. Clients do not ask again."""
    for key, may in ((KEY, True), (OTHER_KEY, False)):
        answer = requests.post(url + path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=20)
        assert answer.status_code == 404
        assert (step in answer.text) == (may or step.startswith("GET"))
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("param", "openai", "google"),
    [
        ("", "", ""),
        ("messages[1].parts[0].text", "messages[1].content[0].text", "contents"),
        (
            "messages[1].parts[2].image",
            "messages[1].content[2].image_url.url",
            "contents",
        ),
        ("count", "n", "generationConfig.candidateCount"),
        ("tools[0].function", "tools[0].function", "tools[0].function"),
        ("generationConfig.seed", "generationConfig.seed", "generationConfig.seed"),
        ("seed", "seed", "generationConfig.seed"),
    ],
)
def test_names_of_fields(param: str, openai: str, google: str) -> None:
    """A dialect renames what it spells its own way, and leaves what is spelled so already."""
    assert (SPOKEN["openai"].spelled(param), SPOKEN["google"].spelled(param)) == (openai, google)
