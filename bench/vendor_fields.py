"""`python -m bench.vendor_fields`: what fields of a vendor's own cost, in CPU, on the way in and on the way back.

A chat of four messages, from a body in OpenAI's dialect to the provider's request; and a chunk, from the provider's
bytes to the caller's. Each without the carrier (what went before), with it and no such fields, and with some. Medians,
taken in turns in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any, Final

from moa.text.v1.text_service_pb2 import GenerateTextRequest, GenerateTextResponse
from services.catalogue import Model
from services.common import limits
from services.providers.openai.text import ADAPTER
from services.providers.openai.text.request import Options, body_from
from services.providers.text.ignored import Ignored
from services.router.dialects.openai.chat_reply import Chunks
from services.router.dialects.openai.chat_request import read
from services.router.dialects.reply import encode, frame
from services.text.capable import check

ROUNDS: Final = 60
EACH: Final = 200
MODEL: Final = Model(id="m", provider="p")
MESSAGES: Final = [{"role": "user" if n % 2 == 0 else "assistant", "content": "Say hello. " * 20} for n in range(3)]
PLAIN: Final = encode({"model": "m", "stream": True, "messages": [{"role": "system", "content": "s"}, *MESSAGES]})
HINTS: Final = {"metadata": {"a": "b"}, "prompt_cache_key": "k", "service_tier": "flex"}
UNKNOWN: Final = {"min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}}
CHUNK: Final = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": "f"}


def _body(**more: Any) -> bytes:
    return encode({"model": "m", "stream": True, "messages": [{"role": "system", "content": "s"}, *MESSAGES], **more})


def _request(body: bytes, *, carrier: bool = True) -> None:
    (found, *_), _ = read(body)
    if not carrier:
        found.ClearField("vendor")
    found = GenerateTextRequest.FromString(found.SerializeToString())
    ignored = Ignored.of(found)
    limits.check(found)
    check(found, MODEL, ADAPTER, ignored)
    encode(body_from(found, MODEL, Options(), ignored))


def _chunks(delta: dict[str, Any], *, carrier: bool = True, **choice: Any) -> Callable[[], None]:
    request = GenerateTextRequest(stream=True)
    if carrier:
        request.vendor.vendor = "openai"
    reader: Any = ADAPTER.reader(request, MODEL, {"content-type": "text/event-stream"})
    shown = Chunks(SimpleNamespace(model=MODEL), "r", include_usage=False)  # type: ignore[arg-type]
    data = frame({**CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]})

    def run() -> None:
        message = GenerateTextResponse(events=reader.feed(data))
        shown.of(GenerateTextResponse.FromString(message.SerializeToString()))

    return run


def cases() -> dict[str, Callable[[], None]]:
    """Return what is measured, by name; the first of each kind is what others are compared to."""
    known, unknown = _body(**HINTS), _body(**HINTS, **UNKNOWN)
    filtered = {"hate": {"filtered": False, "severity": "safe"}}
    return {
        "request, no carrier": lambda: _request(PLAIN, carrier=False),
        "request, none": lambda: _request(PLAIN),
        "request, three that OpenAI documents": lambda: _request(known),
        "request, two more that nobody knows": lambda: _request(unknown),
        "chunk, no carrier": _chunks({"content": "hello"}, carrier=False),
        "chunk, none": _chunks({"content": "hello"}),
        "chunk, one": _chunks({"content": "hello"}, content_filter_results=filtered),
    }


def main() -> None:
    """Measure and print."""
    made = cases()
    taken: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(ROUNDS):
        for name, run in made.items():
            before = time.process_time()
            for _ in range(EACH):
                run()
            taken[name].append((time.process_time() - before) / EACH * 1e6)
    base = 0.0
    for name, times in taken.items():
        base = median(times) if "no carrier" in name else base
        print(f"{name:40s} {median(times):7.1f} us  {median(times) / base:5.2f}")


if __name__ == "__main__":
    main()
