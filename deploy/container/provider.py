"""A provider that speaks OpenAI's protocol: `python -m deploy.container.provider` on port 9000.

Each answer has ten words of one token; a stream has one each 50 ms.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from aiohttp import web

PORT: Final = 9000
MODEL: Final = "steady"
WORDS: Final = 10
PROMPT_TOKENS: Final = 5


def _choice(word: str, finish: str | None) -> bytes:
    choice = {"index": 0, "delta": {"content": word} if word else {}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def _answer(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": WORDS, "total_tokens": PROMPT_TOKENS + WORDS}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "word " * WORDS}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
        return web.json_response({**whole, "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(WORDS):
        await response.write(_choice("word ", None))
        await asyncio.sleep(0.05)
    await response.write(_choice("", "stop"))
    end = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [], "usage": usage}
    await response.write(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
    return response


async def _models(request: web.Request) -> web.Response:
    row = {"id": MODEL, "object": "model", "created": 1, "owned_by": "x"}
    return web.json_response({"object": "list", "data": [row]})


def application() -> web.Application:
    """Return the server."""
    made = web.Application()
    made.add_routes(
        [
            web.post("/v1/chat/completions", _answer),
            web.get("/v1/models", _models),
        ]
    )
    return made


if __name__ == "__main__":
    web.run_app(application(), port=PORT, print=None)
