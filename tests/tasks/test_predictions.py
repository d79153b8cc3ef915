"""The documented predictions API, with the public `replicate` client, through the real edge."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from standardwebhooks import Webhook

from services.tasks.dialects.predictions import paths
from services.tasks.dialects.predictions.servicer import WAIT_S
from tests import shipped
from tests.emulators.painter import paint
from tests.emulators.receiver import Receiver
from tests.tasks.system import System, until

LOCAL = "local/moa-tiny-image"


Connect = Callable[[str], Client]


@pytest.fixture
def connect(system: System) -> Iterator[Connect]:
    """Return clients by key, closed at the end: they would leave their sockets open."""
    made: list[Client] = []

    def go(key: str) -> Client:
        made.append(Client(api_token=key, base_url=system.url))
        return made[-1]

    yield go
    for client in made:
        client._client.close()  # noqa: SLF001  # it has no way of its own


@pytest.fixture
def client(system: System, connect: Connect) -> Client:
    return connect(system.api_key)


def begun(system: System, prompt: str) -> str:
    """Create a prediction without waiting, as a caller other than the public client asks for it."""
    made = system.post(f"/v1/models/{LOCAL}/predictions", {"input": {"prompt": prompt}}, prefer="respond-async")
    assert made.status_code == 201
    found: str = made.json()["id"]
    return found


PATHS: list[tuple[str, dict[str, Any], int]] = [
    (
        "opanai/gpt-image-1",
        {"size": "1024x1024", "n": 1, "quality": "high", "moderation": "low", "background": "auto"},
        1,
    ),
    ("openai/gpt-image-1", {"n": 2}, 2),
    ("opanai/dall-e-3", {"size": "64x64", "quality": "hd", "style": "vivid"}, 1),
    ("ideogram/V3", {"rendering_speed": "QUALITY", "aspect_ratio": "2x1"}, 1),
    ("stability/Stable-Diffusion-3-5-Large", {"n": 1}, 1),
    ("google/imagen-3.0-generate-002", {"numberOfImages": 1}, 1),
    ("imagen-3.0-generate-002", {"numberOfImages": 2}, 2),
    ("google/imagen-4.0-generate-preview-05-20", {}, 1),
    ("imagen-4.0-generate-preview-05-20", {}, 1),
    ("google/imagen-4.0-ultra-generate-exp-05-20", {}, 1),
    ("imagen-4.0-ultra-generate-exp-05-20", {}, 1),
    (LOCAL, {"num_inference_steps": 3, "width": 32, "height": 32, "seed": 7, "n": 3}, 3),
]

PROMPT = "호수에서 물을 마시는 사슴, 벚꽃 잎이 떨어지고, 푸르고 깨끗한 물, 일본 사원"


@pytest.mark.parametrize(("path", "given", "count"), PATHS, ids=[row[0] for row in PATHS])
def test_every_documented_path_takes_its_documented_parameters(
    system: System, path: str, given: dict[str, Any], count: int
) -> None:
    """The document's curl, path by path: 201, succeeded, a list of as many links as were asked for."""
    body = {"input": {"prompt": PROMPT, **given}}
    made = system.post(f"/v1/models/{path}/predictions", body)
    assert made.status_code == 201, made.text
    found = made.json()
    assert found["status"] == "succeeded", found.get("error")
    assert found["model"] == path
    assert found["input"] == body["input"]
    assert len(found["output"]) == count
    for number, link in enumerate(found["output"]):
        answer = requests.get(link, timeout=60)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        if path == LOCAL:
            assert answer.content == paint(PROMPT, number, 32, 32)


REFUSED = [
    ("opanai/gpt-4o-image-vip", {}, 400, "reverse-engineered"),
    ("opanai/gpt-4o-image", {}, 400, "reverse-engineered"),
    ("ideogram/V_2", {}, 400, "legacy API"),
    ("ideogram/V_1_TURBO", {}, 400, "legacy API"),
    ("ideogram/V2", {}, 400, "legacy API"),
    ("google/gemini-2.5-flash-image", {}, 400, "Gemini"),
    ("no/such", {}, 404, "no model"),
    ("local/no-such", {}, 404, "not configured"),
    ("opanai/gpt-image-1", {"prompt": ""}, 422, "prompt is required"),
    ("opanai/gpt-image-1", {"size": "big"}, 422, "input.size"),
    ("opanai/gpt-image-1", {"n": 11}, 422, "input.n"),
    ("opanai/gpt-image-1", {"n": True}, 422, "input.n"),
    ("opanai/gpt-image-1", {"quality": "best"}, 422, "input.quality"),
    ("opanai/dall-e-3", {"n": 2}, 422, "input.n"),
    ("ideogram/V3", {"aspect_ratio": "wide"}, 422, "input.aspect_ratio"),
    ("imagen-3.0-generate-002", {"n": 1}, 422, "input.n is not taken"),
    (LOCAL, {"guidance_scale": float("nan")}, 422, "input.guidance_scale"),
    (LOCAL, {"image": "http:/x"}, 422, "input.image"),
]


@pytest.mark.parametrize(("path", "given", "status", "words"), REFUSED)
def test_refusals_are_problems_with_the_reason(
    system: System, path: str, given: dict[str, Any], status: int, words: str
) -> None:
    """{title, detail, status}, as the clients raise it."""
    found = requests.post(
        f"{system.url}/v1/models/{path}/predictions",
        data=_json({"input": {"prompt": "x", **given}}),
        headers=system.auth,
        timeout=60,
    )
    assert found.status_code == status, found.text
    assert set(found.json()) == {"title", "detail", "status"}
    assert found.json()["status"] == status
    assert words in found.json()["detail"]


def _json(value: Any) -> str:
    """NaN is written as Python does."""
    return json.dumps(value)


def test_the_public_client_runs_a_model(client: Client) -> None:
    """`run` waits and gives the links (which the client wraps as files where they are https)."""
    [link] = client.run(LOCAL, input={"prompt": "run", "width": 32, "height": 32})
    assert requests.get(link, timeout=60).content == paint("run", 0, 32, 32)


def test_the_public_client_raises_a_models_failure(client: Client) -> None:
    """A prediction that fails is a ModelError with its reason."""
    with pytest.raises(ModelError, match="as asked"):
        client.run(LOCAL, input={"prompt": "fail=content_policy"})


def test_the_public_client_creates_gets_waits_and_lists(system: System, client: Client) -> None:
    """`models.predictions.create`, `reload`, `wait`, `predictions.get`, `predictions.list`."""
    made = client.models.predictions.create(LOCAL, input={"prompt": "later gate=later"}, wait=False)
    assert made.completed_at is None
    (system.gates / "later").touch()
    made.wait()
    assert made.status == "succeeded"
    assert made.metrics is not None
    assert made.metrics["predict_time"] > 0
    again = client.predictions.get(made.id)
    assert (again.id, again.status, again.model) == (made.id, "succeeded", LOCAL)
    assert made.id in [each.id for each in client.predictions.list().results]


def test_the_public_client_pages_through_its_predictions(system: System, connect: Connect) -> None:
    """`next` leads through all of them, and on to none."""
    _, key = system.account()
    own = connect(key)
    made = [own.models.predictions.create(LOCAL, input={"prompt": f"page {n}"}, wait=False).id for n in range(3)]
    page = own.predictions.list()
    assert [each.id for each in page.results] == made[::-1]
    assert page.next is None


def test_the_public_client_cancels(system: System, client: Client) -> None:
    """A running prediction is stopped, down to the model, and is charged nothing."""
    prompt = "cancel me gate=never-opened"
    made = client.predictions.get(begun(system, prompt))
    until(lambda: (system.gates / "never-opened.reached").exists(), what="the model's start")
    made.cancel()
    assert made.status == "canceled"
    until(lambda: system.paintings("cancelled", prompt) == 1, what="the model's stop")
    assert system.query("select consumed_micros from tasks.tasks where id = %s", made.id) == [(0,)]


def test_the_public_client_streams(client: Client) -> None:
    """`stream` gives each output as it comes, then the end."""
    made = client.models.predictions.create(LOCAL, input={"prompt": "stream", "n": 2}, wait=False)
    kinds = [event.event.value for event in made.stream()]
    assert kinds.count("output") == 2
    assert kinds[-1] == "done"


def test_a_stream_is_followed_by_its_link_alone(system: System, client: Client) -> None:
    """As the client for JavaScript does, which sends no key there; the link is good for its own prediction alone."""
    one, other = (
        client.models.predictions.create(LOCAL, input={"prompt": f"linked {n}"}, wait=False) for n in ("one", "two")
    )
    assert one.urls is not None
    assert other.urls is not None
    followed = requests.get(one.urls["stream"], headers={"accept": "text/event-stream"}, timeout=30)
    assert followed.status_code == 200
    assert followed.text.count("event: output") == 1
    assert followed.text.rstrip().endswith("data: {}")
    stolen = other.urls["stream"].partition("?")[0] + "?" + one.urls["stream"].partition("?")[2]
    assert requests.get(stolen, timeout=30).status_code == 403
    assert requests.get(one.urls["stream"].partition("?")[0], timeout=30).status_code == 401


def picture(side: int = 16) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "PNG")
    return out.getvalue()


def test_the_public_client_sends_files(system: System, client: Client) -> None:
    """An open file among the inputs is uploaded by the client and read from there; the answer names its link."""
    file = io.BytesIO(picture())
    file.name = "red.png"
    made = client.models.predictions.create(LOCAL, input={"prompt": "from a file", "image": file})
    made.wait()
    assert made.status == "succeeded"
    assert made.input is not None
    sent = urlsplit(made.input["image"])
    assert sent.path.startswith("/files/")
    assert requests.get(made.input["image"], timeout=60).content == picture()


def test_files_are_kept_told_and_deleted(system: System, connect: Connect) -> None:
    """`files.create`, `get`, `list` and `delete` of the public client; nobody else's are seen."""
    _, key = system.account()
    own, stranger = connect(key), connect(system.api_key)
    file = io.BytesIO(picture())
    made = own.files.create(file, filename="red.png", content_type="image/png", metadata={"of": "me"})
    assert (made.name, made.content_type, made.size, made.metadata) == (
        "red.png",
        "image/png",
        len(picture()),
        {"of": "me"},
    )
    assert own.files.get(made.id).checksums == {"sha256": hashlib.sha256(picture()).hexdigest()}
    assert [each.id for each in own.files.list()] == [made.id]
    for call in (stranger.files.get, stranger.files.delete):
        with pytest.raises(ReplicateError, match="no such file"):
            call(made.id)
    assert own.files.delete(made.id)
    assert own.files.list() == []
    assert requests.get(made.urls["get"], timeout=60).status_code == 404


def test_an_upload_that_is_no_image_is_refused(system: System) -> None:
    """No form, no file, no picture, and bad metadata: each says what is expected, and nothing is kept."""
    _, key = system.account()
    headers = {"authorization": f"Bearer {key}"}

    def send(**given: Any) -> tuple[int, str]:
        answer = requests.post(f"{system.url}/v1/files", headers=headers, timeout=60, **given)
        return answer.status_code, answer.json()["detail"]

    assert send(json={"content": "x"}) == (415, "a multipart/form-data body is expected")
    assert send(files={"other": ("a.png", picture())})[0] == 422
    assert send(files={"content": ("a.txt", b"words", "text/plain")})[0] in (415, 422)
    assert send(files={"content": ("a.png", picture())}, data={"metadata": "[]"})[0] == 422
    assert requests.get(f"{system.url}/v1/files", headers=headers, timeout=60).json()["results"] == []


def test_an_answered_version_can_be_sent(client: Client) -> None:
    """What a prediction calls its version makes another one of the same model, through the public client."""
    for path in (LOCAL, "openai/gpt-image-1"):
        first = client.models.predictions.create(path, input={"prompt": "versioned"})
        assert first.version is not None
        again = client.predictions.create(first.version, input={"prompt": "versioned"})
        again.wait()
        assert (again.status, again.version) == ("succeeded", first.version)
    assert paths.of_version("azure-openai-image/dall-e-3") == "opanai/dall-e-3"
    assert paths.of_version("openai/dall-e-3") == "openai/dall-e-3"


def test_the_clients_read_progress_from_the_logs(system: System, client: Client) -> None:
    """While it runs, `progress` says how far it is."""
    made = client.predictions.get(begun(system, "steps=4 gate=half"))
    until(lambda: (system.gates / "half.reached").exists(), what="half of the steps")

    def progress() -> Any:
        made.reload()
        return made.progress

    found = until(progress, what="progress")
    assert found.total == 4
    assert 1 <= found.current < 4
    (system.gates / "half").touch()
    made.wait()
    assert made.status == "succeeded"


@pytest.mark.parametrize(("prefer", "least_s"), [("respond-async", 0), ("wait=1", 1), ("wait=2", 2)])
def test_prefer_decides_how_long_the_answer_waits(system: System, prefer: str, least_s: int) -> None:
    """respond-async answers without waiting, wait=n after n seconds; without either it would be a minute."""
    gate = f"prefer-{prefer.replace('=', '-')}"
    began = time.monotonic()
    made = system.post(f"/v1/models/{LOCAL}/predictions", {"input": {"prompt": f"gate={gate}"}}, prefer=prefer)
    taken_s = time.monotonic() - began
    assert made.status_code == 201
    assert made.json()["status"] in ("starting", "processing")
    assert least_s <= taken_s < WAIT_S / 2
    (system.gates / gate).touch()
    ended = until(
        lambda: (f := system.get(f"/v1/predictions/{made.json()['id']}").json())["completed_at"] and f, what="the end"
    )
    assert ended["status"] == "succeeded"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=1000"])
def test_a_wait_out_of_range_is_refused(system: System, prefer: str) -> None:
    """One to sixty seconds."""
    found = system.post(f"/v1/models/{LOCAL}/predictions", {"input": {"prompt": "x"}}, prefer=prefer)
    assert found.status_code == 422


def test_webhooks_come_for_the_filtered_events_only(system: System, client: Client, receiver: Receiver) -> None:
    """start and completed were asked for: nothing else comes, each once, signed, in the prediction's shape."""
    made = client.models.predictions.create(
        LOCAL,
        input={"prompt": "gate=hooked"},
        webhook=receiver.url,
        webhook_events_filter=["start", "completed"],
        wait=False,
    )
    # A body tells of the prediction as it is when it is sent, so its end waits until the start has come.
    until(lambda: receiver.effects(made.id) == 1, what="the webhook of the start")
    (system.gates / "hooked").touch()
    until(lambda: receiver.effects(made.id) == 2, what="two webhooks")
    statuses = {headers["webhook-id"]: body["status"] for headers, body in receiver.of(made.id)}
    assert sorted(statuses.values()) in (["starting", "succeeded"], ["processing", "succeeded"])
    secret = client.webhooks.default.secret()
    for headers, raw in [(h, b) for h, b in receiver.arrived if made.id.encode() in b]:
        Webhook(secret.key).verify(raw, headers)


def test_progress_webhooks_are_throttled(system: System, client: Client, receiver: Receiver) -> None:
    """Two hundred steps, and no more than a report of a stage's beginning and two a second from then on."""
    made = client.models.predictions.create(
        LOCAL,
        input={"prompt": "throttled steps=200"},
        webhook=receiver.url,
        webhook_events_filter=["logs", "completed"],
        wait=False,
    )
    found = "select extract(epoch from ended_at - started_at)::float from tasks.tasks where id = %s and state = 4"
    [(ran_s,)] = until(lambda: system.query(found, made.id), what="the end")
    reports = system.query("select 1 from tasks.deliveries where task_id = %s and event = 'logs'", made.id)
    stages = len({"queued", "diffusion", "storing"})
    assert 1 <= len(reports) <= stages + 2 * ran_s


def test_the_client_shows_a_bad_key_and_a_missing_prediction(client: Client, connect: Connect) -> None:
    """ReplicateError with title, detail and status."""
    with pytest.raises(ReplicateError) as caught:
        connect("sk-wrong").predictions.get("ta0")
    assert caught.value.status == 401
    with pytest.raises(ReplicateError) as caught:
        client.predictions.get("ta0")
    assert (caught.value.status, caught.value.title) == (404, "Not found")


async def test_the_asynchronous_client_works_too(system: System) -> None:
    """`async_run` waits as `run` does."""
    client = Client(api_token=system.api_key, base_url=system.url)
    found: Any = await client.async_run(LOCAL, input={"prompt": "async", "width": 32, "height": 32})
    [link] = found
    await client._async_client.aclose()  # noqa: SLF001  # it has no way of its own
    answer = await asyncio.to_thread(requests.get, link, timeout=60)
    assert answer.content == paint("async", 0, 32, 32)


@pytest.mark.parametrize(
    ("path", "given", "told"),
    [
        ("openai/gpt-image-1", {"size": "512x512"}, ["input.size=1024x1024"]),
        ("openai/gpt-image-1", {"size": "1024x1024"}, []),
        ("ideogram/V3", {"resolution": "1000x1000"}, ["input.resolution=1024x1024"]),
        ("ideogram/V3", {"aspect_ratio": "7x5"}, ["input.aspect_ratio=4:3"]),
        ("google/imagen-4.0-generate-preview-05-20", {"aspectRatio": "3:2"}, ["input.aspectRatio=4:3"]),
        ("local/moa-tiny-image", {"width": 2000, "height": 1000}, ["input.width=512", "input.height=256"]),
    ],
)
def test_a_size_that_is_not_made_is_named_by_its_input(path: str, given: dict[str, Any], told: list[str]) -> None:
    """The nearest is made, and the answer's header says for which input."""
    known, inputs = paths.find(path), {"prompt": "x", **given}
    request = paths.request_of(known, inputs)
    assert paths.fitted(known, request, inputs, shipped.catalogue().find(known.names[0])) == told
