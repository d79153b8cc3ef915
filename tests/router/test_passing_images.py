"""OpenAI's image paths to providers of its image API: what no contract types passes, both ways."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
import requests

from moa.image.v1 import image_pb2, image_service_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import vendor_fields
from services.common.errors import InvalidField, TooLarge, UpstreamBroken
from services.image.targets import ADAPTERS
from services.providers.http.multipart import File, form
from services.router.dialects.openai import image_request
from services.router.dialects.reply import encode
from tests.emulators.pictures import png
from tests.router.rig import KEY, Played

Json = dict[str, Any]
PICTURE = png(16, 16)
OWN = Provider(id="p", adapter="openai", makes="image", base_url="https://x/v1")
OPENAI = msgspec.structs.replace(OWN, options={"passes": "documented"})
AZURE = msgspec.structs.replace(OWN, adapter="azure", base_url="https://x")
MODEL = Model(id="m", provider="p", upstream="u", capabilities=frozenset({"edit"}))
HINTS: Json = {"next_years": {"a": [1]}, "store": True, "n_best": 2}
NAMES = list(HINTS)


def asked(body: Json, kind: image_request.Kind = "generation", *, strict: bool = False) -> GenerateImageRequest:
    """Return the request of a JSON body."""
    data = encode({"model": "m", "prompt": "a cat", **body})
    return image_request.request_from(data, "application/json", kind, strict=strict)[0]


def edited(**more: str) -> GenerateImageRequest:
    """Return the request of a form."""
    data, kind = form([("model", "m"), ("prompt", "a cat"), ("image", File(PICTURE, "image/png")), *more.items()])
    return image_request.request_from(bytes(data), kind, "edit")[0]


def sent(request: GenerateImageRequest, provider: Provider = OWN, model: Model = MODEL) -> bytes:
    """Return the body of the provider's one call."""
    (call,) = ADAPTERS[provider.adapter].calls_from(request, model, provider)
    assert call.returns
    return bytes(call.outgoing.body)


def ignored(request: GenerateImageRequest, provider: Provider = OWN, model: Model = MODEL) -> list[str]:
    return list(ADAPTERS[provider.adapter].ignored(request, model, provider))


def test_unknown_fields_pass_to_a_server_of_the_api() -> None:
    """As they came; what reaches the operator's account does not, and is named."""
    request = asked(HINTS)
    body = json.loads(sent(request))
    assert body == {"model": "u", "prompt": "a cat", "next_years": {"a": [1]}, "n_best": 2}
    assert ignored(request) == ["store"]


@pytest.mark.parametrize("provider", [OPENAI, AZURE])
def test_openai_gets_what_it_documents(provider: Provider) -> None:
    """It refuses what it does not know: such fields are named, and the image is made."""
    assert json.loads(sent(asked(HINTS), provider)).keys() - {"model"} == {"prompt"}
    assert ignored(asked(HINTS), provider) == NAMES


@pytest.mark.parametrize("provider", [OWN, OPENAI, AZURE])
def test_fidelity_passes_with_a_change(provider: Provider) -> None:
    """By form and by JSON; it means nothing where nothing is changed, and to OpenAI's models before gpt-image."""
    uri = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    by_json = asked({"images": [{"image_url": uri}], "input_fidelity": "high"}, "edit")
    for request in (edited(input_fidelity="high"), by_json):
        assert b'name="input_fidelity"\r\n\r\nhigh' in sent(request, provider)
        assert ignored(request, provider) == []
    if provider is not OWN:
        assert ignored(asked({"input_fidelity": "high"}), provider) == ["input_fidelity"]
        old = msgspec.convert(
            {"id": "m", "provider": "p", "capabilities": ["edit"], "limits": {"response_format": "b64_json"}}, Model
        )
        assert ignored(edited(input_fidelity="high"), provider, old) == ["input_fidelity"]


def test_unknown_fields_of_a_form_pass_too() -> None:
    """An object goes as its JSON."""
    request = edited(next_years="1")
    assert b'name="next_years"\r\n\r\n1' in sent(request)
    with_object = edited()
    with_object.vendor.CopyFrom(vendor_fields.envelope("openai", {"mood": {"a": 1}}))
    assert b'name="mood"\r\n\r\n{"a":1}' in sent(with_object)


def test_nothing_typed_is_changed() -> None:
    """Whoever filled the envelope: counts, forms and sizes are the gateway's."""
    typed = ("n", "model", "stream", "response_format", "size", "user", "image", "output_format", "partial_images")
    request = asked({})
    request.vendor.CopyFrom(vendor_fields.envelope("openai", dict.fromkeys(typed, 9), typed))
    assert json.loads(sent(request)) == {"model": "u", "prompt": "a cat"}
    assert ignored(request) == list(typed)


@pytest.mark.parametrize("name", ["gemini", "bedrock", "ideogram", "stability"])
def test_other_vendors_name_them(name: str) -> None:
    """None of it has an effect there."""
    assert list(ADAPTERS[name].ignored(asked(HINTS), MODEL, OWN)) == NAMES


def test_too_much_is_refused() -> None:
    """Before anything is reserved."""
    with pytest.raises(TooLarge):
        asked({"next_years": "x" * vendor_fields.MOST_BYTES})


def test_inside_an_image_nothing_passes() -> None:
    """A field beside a link to an image has no place in the contract: it is named, or refused where that is strict."""
    uri = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    body = {"images": [{"image_url": uri, "depth": 1}], "other": 1}
    data = encode({"model": "m", "prompt": "a cat", **body})
    request, wanted = image_request.request_from(data, "application/json", "edit")
    assert (wanted.ignored, list(request.vendor.names)) == (["images[].depth"], ["other"])
    with pytest.raises(InvalidField):
        asked(body, "edit", strict=True)


ANSWER: Json = {
    "created": 1,
    "data": [{"b64_json": base64.b64encode(PICTURE).decode(), "safety": {"score": 1}}],
    "usage": {
        "input_tokens": 11,
        "output_tokens": 100,
        "total_tokens": 111,
        "input_tokens_details": {"image_tokens": 4, "text_tokens": 7, "file_tokens": 1},
    },
    "fingerprint": "f",
}


def read(answer: Json, request: GenerateImageRequest) -> list[image_pb2.ImageEvent]:
    """Return the events of an answer, whole or as the last event of a stream."""
    streamed = "type" in answer
    (call,) = ADAPTERS["openai"].calls_from(request, MODEL, OWN)
    headers = {"content-type": "text/event-stream" if streamed else "application/json"}
    reader = ADAPTERS["openai"].reader(call, MODEL, headers)
    data = json.dumps(answer).encode()
    out = [*reader.feed(b"data: " + data + b"\n\n" if streamed else data), *reader.end()]
    if reader.failure is not None:
        raise reader.failure
    return [each if isinstance(each, image_pb2.ImageEvent) else each.event for each in out]  # type: ignore[union-attr]


COMPLETED: Json = {
    "type": "image_generation.completed",
    "fingerprint": "f",
    **{name: ANSWER["data"][0][name] for name in ("b64_json",)},
    "usage": ANSWER["usage"],
}


def test_answers_come_as_they_were() -> None:
    """Of the whole and of each image; of a stream what its last event says. Long base64 in them is whole again."""
    mask = base64.b64encode(bytes(4096)).decode()
    picture, answer, image = read({**ANSWER, "data": [{**ANSWER["data"][0], "mask": mask}]}, asked({}))
    assert picture.HasField("image")
    details = {"usage": {"input_tokens_details": {"file_tokens": 1}}, "fingerprint": "f"}
    assert json.loads(answer.vendor.json) == {"answer": details}
    assert json.loads(image.vendor.json) == {"image": {"safety": {"score": 1}, "mask": mask}}
    _, answer = read(COMPLETED, asked({}))
    assert json.loads(answer.vendor.json) == {"answer": details}


def test_others_are_shown_none_of_it() -> None:
    """A caller who does not speak the vendor's API would not know what it is."""
    other = GenerateImageRequest(prompt="x")
    (call,) = ADAPTERS["openai"].calls_from(other, MODEL, OWN)
    assert not call.returns
    assert [event.WhichOneof("event") for event in read(ANSWER, other)] == ["image"]


def test_an_answer_with_too_much_beside_it_fails() -> None:
    """What is dropped must not look like success."""
    with pytest.raises(UpstreamBroken):
        read({**ANSWER, "more": "x y" * vendor_fields.MOST_BYTES}, asked({}))


@pytest.mark.parametrize("streamed", [False, True])
def test_callers_see_it(url: str, played: Played, streamed: bool) -> None:
    """Beside what is typed, which stays."""
    made = list(Played.images(image_service_pb2.GenerateImageRequest(count=1))[1:])
    beside = image_service_pb2.GenerateImageResponse()
    for fields in (
        {
            "answer": {
                "usage": {"input_tokens_details": {"image_tokens": 4, "file_tokens": 1}},
                "fingerprint": "f",
                "created": 9,
            }
        },
        {"image": {"safety": 1, "b64_json": "no"}},
    ):
        beside.events.add(vendor=vendor_fields.envelope("openai", fields))
    beside.events.extend(made[-1].events)
    picture_events = [event for event in beside.events if event.HasField("image")]
    assert picture_events
    order = sorted(beside.events, key=lambda event: (event.HasField("finished"), event.HasField("vendor")))
    played.script = [image_service_pb2.GenerateImageResponse(events=order)]
    body = {"model": "gpt-image-1", "prompt": "x", "stream": streamed, "response_format": "b64_json"}
    got = requests.post(f"{url}/v1/images/generations", json=body, headers={"x-api-key": KEY}, timeout=60)
    assert got.status_code == 200, got.text
    whole = json.loads(got.text.partition("data: ")[2]) if streamed else got.json()
    assert whole["usage"]["input_tokens_details"] == {"image_tokens": 0, "text_tokens": 3, "file_tokens": 1}
    assert whole["fingerprint"] == "f"
    assert whole["created_at" if streamed else "created"] != 9
    image = whole if streamed else whole["data"][0]
    assert image["safety"] == 1
    assert image["b64_json"] != "no"
