"""How many copies of a large request lie in a process as it is read, and as a provider's request is made of it.

Run as a module, it prints them as JSON, by what is done: the most that the process held meanwhile, by the size of the
caller's body. What is received and sent by gRPC, one request at a time, is beside it.
"""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import growth_pictures
from bench.large_bodies import FOUR_BYTES, PICTURE_BYTES
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Catalogue, Environment, load
from services.common import memory
from services.image.targets import ADAPTERS as IMAGE
from services.providers.http.multipart import File, form
from services.providers.text.ignored import Ignored
from services.router.dialects.openai import chat_request, image_request
from services.text.targets import ADAPTERS as TEXT

CHAT_MODEL: Final = "gpt-5-mini"
_CATALOGUE: Final = Path("gateway/catalogue.yaml")


def _kept_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


class Copies:
    """Counts copies of a body of so many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def of(self, work: Callable[..., Any], given: int, *arguments: Any) -> tuple[float, Any]:
        """Return how many there are at most amid a work whose arguments have so many bytes, and what it makes."""
        gc.collect()
        memory.give_back_now()
        Path("/proc/self/clear_refs").write_text("5")
        before = _kept_bytes("VmRSS")
        made = work(*arguments)
        return (_kept_bytes("VmHWM") - before + given) / self._size, made


def chat_body(size_bytes: int = FOUR_BYTES) -> bytes:
    """Return OpenAI's body of a chat with four pictures."""
    link = "data:image/png;base64," + base64.b64encode(growth_pictures.picture(size_bytes)).decode()
    parts = [{"type": "text", "text": "What are these?"}] + 4 * [{"type": "image_url", "image_url": {"url": link}}]
    return json.dumps({"model": CHAT_MODEL, "messages": [{"role": "user", "content": parts}]}).encode()


def edit_body(size_bytes: int = PICTURE_BYTES) -> tuple[bytes, str]:
    """Return the form of an edit, and its type."""
    picture = File(growth_pictures.picture(size_bytes), "image/png")
    body, content_type = form([("model", growth_pictures.MODEL), ("prompt", "a sea"), ("image", picture)])
    return bytes(body), content_type


def chat(catalogue: Catalogue, body: bytes) -> dict[str, float]:
    """Return the copies of a chat's body."""
    model, copies, taken = catalogue.find(CHAT_MODEL), Copies(len(body)), _taken(body)
    del body
    read, (result, _) = copies.of(chat_request.read, len(taken), taken)
    data, request = result.request.SerializeToString(), result.request
    del result
    received, _ = copies.of(GenerateTextRequest.FromString, len(data), data)
    size = len(data)
    del data
    provider = catalogue.provider(model.provider)
    made, _ = copies.of(TEXT["openai"].request_from, size, request, model, provider, Ignored.of(request))
    return {"chat read": read, "chat received": received, "chat made the provider's": made}


def edit(catalogue: Catalogue, body: bytes, content_type: str) -> dict[str, float]:
    """Return the copies of an edit's body."""
    model, copies, taken = catalogue.find(growth_pictures.MODEL), Copies(len(body)), _taken(body)
    del body
    read, (request, _) = copies.of(image_request.request_from, len(taken), taken, content_type, "edit")
    data = request.SerializeToString()
    received, _ = copies.of(GenerateImageRequest.FromString, len(data), data)
    size = len(data)
    del data
    made, _ = copies.of(IMAGE["openai"].calls_from, size, request, model, catalogue.provider(model.provider))
    return {"edit read": read, "edit received": received, "edit made the provider's": made}


def _taken(body: bytes) -> Any:
    """Return a body as it is read."""
    return bytearray(body)


def main() -> None:
    """Print them."""
    memory.give_back_freed()
    catalogue = load(_CATALOGUE, Environment({"OPENAI_API_KEY": "sk-copies"}))
    for warm in (True, False):  # what is made once is made
        found = chat(catalogue, chat_body(2**16) if warm else chat_body())
        found |= edit(catalogue, *(edit_body(2**16) if warm else edit_body()))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
