"""The same images, whatever pieces their bytes come in: shown on every adapter with the bytes of its emulator."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from PIL import Image

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.image.targets import ADAPTERS
from services.providers.http.client import Pool
from services.providers.image.base import Call
from services.providers.image.reading import Out
from tests import shipped
from tests.emulators.pictures import ImageScript, encoded
from tests.image.subjects import STREAMING, SUBJECTS, Subject

NOISY = encoded(Image.frombytes("RGB", (24, 24), random.Random(3).randbytes(24 * 24 * 3)))
"""A picture that does not compress, so that its base64 is long enough to be decoded while it arrives."""
CATALOGUE = shipped.catalogue()
REVISED = '바다 at "night" \\ 🌊'


def _found(subject: Subject) -> tuple[Model, Provider]:
    return CATALOGUE.find(subject.model, provider=subject.provider), CATALOGUE.provider(subject.provider)


def _request(subject: Subject, count: int, stream: bool) -> GenerateImageRequest:
    request = GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="A sea", count=count)
    if stream:
        request.stream = True
        request.preview_every = 5
    return request


async def _recorded(
    subject: Subject, script: ImageScript, *, stream: bool
) -> tuple[Model, Call, dict[str, str], bytes]:
    model, row = _found(subject)
    most = model.limits.count
    count = 1 if stream else min(2, most if isinstance(most, int) else 1)
    async with subject.emulator() as emulator:
        emulator.scripts.append(script)
        provider = Provider(
            id=row.id,
            adapter=row.adapter,
            makes="image",
            base_url=emulator.url + subject.path,
            credentials=row.credentials,
            options=subject.options if subject.options is not None else row.options,
        )
        adapter = ADAPTERS[provider.adapter]
        (call,) = adapter.calls_from(_request(subject, count, stream), model, provider)
        headers = await adapter.authority(provider, subject.environment).headers(call.outgoing)
        pool = Pool(provider.timeouts)
        reply = await pool.send(call.outgoing, headers)
        body = await reply.read_all()
        kept = {name.lower(): value for name, value in reply.headers.items()}
        reply.close()
        await pool.close()
    return model, call, kept, body


def _read(subject: Subject, model: Model, call: Call, headers: dict[str, str], pieces: Iterable[bytes]) -> list[Out]:
    reader = ADAPTERS[_found(subject)[1].adapter].reader(call, model, headers)
    out: list[Out] = []
    for piece in pieces:
        out += reader.feed(piece)
    out += reader.end()
    assert reader.failure is None
    return out


def _split_everywhere(
    subject: Subject, model: Model, call: Call, headers: dict[str, str], body: bytes, expected: list[Out]
) -> None:
    for at in range(1, len(body)):
        assert _read(subject, model, call, headers, [body[:at], body[at:]]) == expected, f"split at byte {at}"
    assert _read(subject, model, call, headers, (body[i : i + 1] for i in range(len(body)))) == expected


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
async def test_every_byte_boundary(subject: Subject) -> None:
    """Split at each byte, and byte by byte, the images of a whole answer are those of the answer in one piece."""
    script = ImageScript(image=NOISY, revised=REVISED if subject.revises else "")
    model, call, headers, body = await _recorded(subject, script, stream=False)
    expected = _read(subject, model, call, headers, [body])
    assert len(expected) == call.count
    _split_everywhere(subject, model, call, headers, body, expected)


@pytest.mark.parametrize("subject", STREAMING, ids=lambda subject: subject.name)
async def test_every_byte_boundary_of_a_stream(subject: Subject) -> None:
    """Split at each byte, and byte by byte, the pictures of a stream are those of the stream in one piece."""
    model, call, headers, body = await _recorded(subject, ImageScript(), stream=True)
    assert headers["content-type"].startswith("text/event-stream")
    expected = _read(subject, model, call, headers, [body])
    assert len(expected) == 4
    _split_everywhere(subject, model, call, headers, body, expected)
