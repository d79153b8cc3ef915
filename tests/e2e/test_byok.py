"""Callers who bring their own Google key, through the real edge, with Gemini's emulator behind."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import openai
import psycopg
import pytest
import requests
from google import genai
from google.genai import errors, types
from PIL import Image

from deploy.local.database import Database
from tests import stacks, waiting
from tests.addresses import From
from tests.auth.asking import audited
from tests.e2e.conftest import Gateway
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.gemini_images import GeminiImagesEmulator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")

CANARY = "AIzaCanary-7f3b9d51c2e84a06b1d7e5f0"
SECOND = "AIzaSecond-7f3b9d51c2e84a06b1d7e5f0"
PACED = "AIzaPaced-7f3b9d51c2e84a06b1d7e5f0"
"""Of whoever asks more than it may."""
BAD = "AIzaCanary-that-google-does-not-know"
TEXT_MODEL, IMAGE_MODEL = "gemini-2.5-flash", "gemini-2.5-flash-image"
SAID = "Hello 안녕 🌍!"


class Google:
    """The emulated text and image services, in a thread."""

    def __init__(self) -> None:
        self.text, self.image = GeminiEmulator(), GeminiImagesEmulator()
        self.text.keys = self.image.keys = frozenset({CANARY, SECOND, PACED})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="google")

    def start(self) -> None:
        self._thread.start()
        for emulator in (self.text, self.image):
            asyncio.run_coroutine_threadsafe(emulator.start(), self._loop).result(20)

    def stop(self) -> None:
        for emulator in (self.text, self.image):
            asyncio.run_coroutine_threadsafe(emulator.stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def catalogue(self) -> dict[str, Any]:
        """Return the catalogue: Google's providers, whose credentials the operator has not got, and another's."""
        google = {"adapter": "gemini", "caller_keys": "AIza", "credentials": {"api_key": "NO_SUCH_GEMINI_KEY"}}
        return {
            "providers": [
                {"id": "gemini-text", "makes": "text", "base_url": f"{self.text.url}/v1beta", **google},
                {"id": "gemini-image", "makes": "image", "base_url": f"{self.image.url}/v1beta", **google},
                {"id": "other-text", "adapter": "openai", "makes": "text", "base_url": "http://127.0.0.1:9"},
            ],
            "models": [
                {"id": TEXT_MODEL, "provider": "gemini-text"},
                {"id": IMAGE_MODEL, "provider": "gemini-image", "capabilities": ["edit", "references"]},
                {"id": "other", "provider": "other-text"},
            ],
        }


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    served = Google()
    served.start()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def byok(google: Google, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose operator allows it."""
    root = tmp_path_factory.mktemp("byok")
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode(google.catalogue()))
    environment = {"MOA_CATALOGUE": str(catalogue), "MOA_BYOK": "1"}
    names = ("auth", "text", "image", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as stack:
        yield Gateway(stack)


def google_client(gateway: Gateway, key: str) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=gateway.url))


def openai_client(gateway: Gateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def test_text(byok: Gateway, google: Google) -> None:
    """Google's client, with Google's key, whole, streamed and counted: the key goes to Google and the answer comes."""
    with google_client(byok, CANARY) as client:
        assert client.models.generate_content(model=TEXT_MODEL, contents="hi").text == SAID
        pieces = client.models.generate_content_stream(model=TEXT_MODEL, contents="hi")
        assert "".join(piece.text or "" for piece in pieces) == SAID
        assert client.models.count_tokens(model=TEXT_MODEL, contents="hi").total_tokens == 31
    assert [seen.headers["x-goog-api-key"] for seen in google.text.seen[-3:]] == [CANARY] * 3


def test_key_in_the_query(byok: Gateway) -> None:
    """`?key=` is as good as the header."""
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    path = f"/v1beta/models/{TEXT_MODEL}:generateContent"
    answer = requests.post(byok.url + path, params={"key": CANARY}, json=body, timeout=20)
    assert answer.json()["candidates"][0]["content"]["parts"][0]["text"] == SAID


def test_an_idempotency_key_is_one_callers_own(byok: Gateway, google: Google) -> None:
    """Those who bring a key share an account and no answers: the same words by another's key are another request."""
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    before = len(google.text.seen)

    def replayed(key: str) -> bool:
        headers = {"x-goog-api-key": key, "Idempotency-Key": "once"}
        path = f"/v1beta/models/{TEXT_MODEL}:generateContent"
        answer = requests.post(byok.url + path, headers=headers, json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.headers.get("idempotent-replayed") == "true"

    assert [replayed(key) for key in (CANARY, SECOND, CANARY, SECOND)] == [False, False, True, True]
    assert len(google.text.seen) == before + 2


@pytest.mark.parametrize(
    "key", ["AIza", "AIza x", "AIza%0d%0aX-Evil:%201", "AIza\u00e9", "aiza-lower", "AIza" + "a" * 600]
)
def test_what_only_begins_like_a_key(byok: Gateway, google: Google, key: str) -> None:
    """What has not the shape of Google's keys is an unknown key, and never sent to Google."""
    seen, refused = len(google.text.seen), len(google.text.refused)
    url = f"{byok.url}/v1beta/models/{TEXT_MODEL}:generateContent?key={key}"
    answer = requests.post(url, json={"contents": [{"parts": [{"text": "hi"}]}]}, timeout=20)
    assert answer.status_code == 401
    assert (len(google.text.seen), len(google.text.refused)) == (seen, refused)


def test_images(byok: Gateway, google: Google) -> None:
    """OpenAI's client makes an image with Google's key, and reads it by its link; Google's client does too."""
    with openai_client(byok, CANARY) as client:
        made = client.images.generate(model=IMAGE_MODEL, prompt="a red circle")
    assert made.data
    linked = requests.get(made.data[0].url or "", timeout=20).content
    assert Image.open(BytesIO(linked)).size == (16, 16)
    with google_client(byok, CANARY) as client:
        contents: list[Any] = ["a red circle", Image.open(BytesIO(linked))]
        answer = client.models.generate_content(model=IMAGE_MODEL, contents=contents)
    assert answer.parts
    assert any(part.inline_data for part in answer.parts)
    assert {seen.headers["x-goog-api-key"] for seen in google.image.seen} == {CANARY}


def test_strangers_own_nothing(byok: Gateway) -> None:
    """A file that another such caller made is read by its signed link only, though both run as one account."""
    with openai_client(byok, CANARY) as client:
        made = client.images.generate(model=IMAGE_MODEL, prompt="x")
        assert made.data
        bare = (made.data[0].url or "").partition("?")[0]
        with pytest.raises(openai.BadRequestError, match="image"):
            client.images.generate(model=IMAGE_MODEL, prompt="x", extra_body={"image": bare})


def test_google_refuses_the_key(byok: Gateway) -> None:
    """Google's API_KEY_INVALID is the caller's 401, in both dialects, whole and streamed."""
    with google_client(byok, BAD) as client:
        for ask in (client.models.generate_content, client.models.count_tokens):
            with pytest.raises(errors.ClientError) as refused:
                ask(model=TEXT_MODEL, contents="hi")
            assert refused.value.code == 401
        with pytest.raises(errors.ClientError) as refused:
            list(client.models.generate_content_stream(model=TEXT_MODEL, contents="hi"))
        assert refused.value.code == 401
    with openai_client(byok, BAD) as client, pytest.raises(openai.AuthenticationError):
        client.images.generate(model=IMAGE_MODEL, prompt="x")


def test_only_googles_models(byok: Gateway) -> None:
    """Another provider's model is told like one that does not exist, and the list shows Google's alone."""
    told = []
    with google_client(byok, CANARY) as client:
        for name in ("other", "none-such"):
            with pytest.raises(errors.ClientError) as refused:
                client.models.generate_content(model=name, contents="hi")
            assert refused.value.code == 404
            told.append((refused.value.message or "").replace(name, "…"))
        assert told[0] == told[1]
        assert {model.name for model in client.models.list()} == {f"models/{TEXT_MODEL}", f"models/{IMAGE_MODEL}"}


def test_only_images_and_google(byok: Gateway) -> None:
    """OpenAI's chat and the native API take keys of this gateway only."""
    with openai_client(byok, CANARY) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=TEXT_MODEL, messages=[{"role": "user", "content": "hi"}])
    body = {"model_id": TEXT_MODEL, "messages": [{"role": "user", "content": "hi"}]}
    answer = requests.post(f"{byok.url}/generate/text", json=body, headers={"X-API-Key": CANARY}, timeout=20)
    assert answer.status_code == 401


def test_off_by_default(gateway: Gateway) -> None:
    """Without MOA_BYOK a Google key is an unknown key."""
    with google_client(gateway, CANARY) as client, pytest.raises(errors.ClientError) as refused:
        client.models.generate_content(model="moa-tiny-chat", contents="hi")
    assert refused.value.code == 401


def test_pace(byok: Gateway) -> None:
    """All of them have a pace that an administrator may set, too; who disables their account ends it all."""
    headers = {"X-API-Key": byok.key}
    account = f"{byok.url}/admin/accounts/byok"
    told = requests.get(account, headers=headers, timeout=20).json()["account"]
    assert "requests_per_minute" not in told["limits"]

    def answered(session: requests.Session, status: int, *, unlike: str | None = None) -> requests.Response:
        """Ask until the answer is of that status and does not say `unlike`: routers hear of changes a moment later."""
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        url = f"{byok.url}/v1beta/models/{TEXT_MODEL}:generateContent"
        for pause_s in waiting.pauses():
            answer = session.post(url, json=body, headers={"x-goog-api-key": PACED}, timeout=20)
            assert answer.status_code in (200, 403, 429), answer.text
            if answer.status_code == status and (unlike is None or unlike not in answer.text):
                return answer
            time.sleep(pause_s)
        raise AssertionError

    changed = {"limits": {"requests_per_minute": 3}}
    assert requests.patch(account, json=changed, headers=headers, timeout=20).status_code == 200
    with requests.Session() as session:
        # Its key and its address have a pace too, which the other tests keep for theirs.
        session.mount("http://", From("127.2.0.1"))
        refused = answered(session, 429, unlike="a key of one's own")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert requests.patch(account, json={"disabled": True}, headers=headers, timeout=20).status_code == 200
        answered(session, 403)
        wide = {"limits": {"requests_per_minute": 6000}, "disabled": False}
        assert requests.patch(account, json=wide, headers=headers, timeout=20).status_code == 200
        answered(session, 200)


def files_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every file with what it holds. A running gateway's database removes some meanwhile: those hold nothing."""
    for where, _, names in os.walk(folder):
        for path in (Path(where, name) for name in names):
            try:
                content = path.read_bytes() if path.is_file() else b""
            except FileNotFoundError:
                continue
            yield path, content


def _tables(state: Path) -> Iterator[tuple[str, bytes]]:
    """Return every table of the gateway's database, as text."""
    with psycopg.connect(Database(state / "postgres").url("moa")) as link:
        names = link.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, name in names:
            with link.cursor().copy(f'copy (select * from "{schema}"."{name}") to stdout'.encode()) as rows:
                yield f"{schema}.{name}", b"".join(bytes(row) for row in rows)


@pytest.fixture
def used(byok: Gateway) -> Gateway:
    """A gateway where such callers were served and refused, and what they used is booked."""
    url = f"{byok.url}/v1beta/models/{TEXT_MODEL}:generateContent"
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    until = time.monotonic() + 60
    for key, status in ((CANARY, 200), (BAD, 401)):
        found = requests.post(url, json=body, headers={"x-goog-api-key": key}, timeout=20)
        assert found.status_code == status, found.text
    with psycopg.connect(Database(byok.stack.root / "postgres").url("moa"), autocommit=True) as link:
        while not link.execute("select 1 from ledger where account_id = 'byok' limit 1").fetchall():
            assert time.monotonic() < until
            time.sleep(0.05)
    return byok


def test_the_key_is_nowhere(used: Gateway) -> None:
    """After all that, no log, metric, table, journal or other file of the gateway holds the key, nor its base64."""
    state = used.stack.root
    marks = [key.encode() for key in (CANARY, PACED, BAD)]
    marks += [base64.b64encode(mark)[:-4] for mark in marks]
    places = {name: used.metrics(name).encode() for name in ("auth", "text", "image", "router", "edge")}
    tables = dict(_tables(state))
    assert b"byok" in tables["public.ledger"]
    places |= tables
    places |= {str(path.relative_to(state)): content for path, content in files_below(state)}
    assert b"rpc.finished" in places["logs/router.log"]
    assert b'"account":"byok"' in places["logs/router.log"].replace(b'": "', b'":"')
    assert not [name for name, data in places.items() if any(mark in data for mark in marks)]


def test_the_books_balance(used: Gateway) -> None:
    """After all that, every counter agrees with the ledger."""
    found = asyncio.run(audited(Database(used.stack.root / "postgres").url("moa")))
    assert found.rows
