"""Open WebUI's backend: its calls, said again by hand, for its package brings half a machine-learning stack.

What it sends is read from its sources (backend/open_webui/utils/middleware.py, routers/openai.py, utils/task.py): every
chat is a stream; in a loop of tools the turn so far is told as text with the thoughts between `<think>` marks, with the
calls as they were put together from the stream; titles are asked for without a stream, in a JSON object in words.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request

import rig

TOOLS = [{"type": "function", "function": tool} for tool in rig.TOOLS]


def sent(question, path: str, body: dict | None = None):
    data = None if body is None else json.dumps(body).encode()
    headers = {
        "Authorization": f"Bearer {question.key}",
        "Content-Type": "application/json",
        "X-OpenWebUI-User-Name": "Ann",
        "X-OpenWebUI-User-Id": "b1c1",
        "X-OpenWebUI-User-Role": "user",
    }
    return urllib.request.urlopen(urllib.request.Request(question.url + path, data, headers), timeout=60)


def chatted(question, messages: list, **more) -> tuple[str, str, list]:
    """Return the text, the thoughts and the calls of a streamed answer."""
    text, thoughts, calls = "", "", {}
    body = {"stream": True, "model": question.model, "messages": messages, **more}
    with sent(question, "/v1/chat/completions", body) as answer:
        for line in answer:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            for choice in json.loads(line[6:]).get("choices") or ():
                delta = choice.get("delta") or {}
                text += delta.get("content") or ""
                thoughts += delta.get("reasoning_content") or delta.get("reasoning") or ""
                for piece in delta.get("tool_calls") or ():
                    known = calls.setdefault(piece["index"], piece)
                    if known is not piece:
                        function = piece.get("function") or {}
                        known["function"]["name"] += function.get("name") or ""
                        known["function"]["arguments"] += function.get("arguments") or ""
    return text, thoughts, [calls[index] for index in sorted(calls)]


def stream(question) -> str:
    """The model is looked for in the list first."""
    with sent(question, "/v1/models") as answer:
        listed = json.load(answer)["data"]
    known = {name for each in listed for name in (each["id"], *each.get("aliases", ()))}
    assert question.model in known, sorted(known)
    asked = [{"role": "system", "content": "You help."}, {"role": "user", "content": rig.MESSAGE}]
    return chatted(question, asked, stream_options={"include_usage": True}, temperature=0.7, seed=1)[0]


def tools_stream(question) -> str:
    messages = [{"role": "user", "content": rig.MESSAGE}]
    while True:
        text, thoughts, calls = chatted(question, messages, tools=TOOLS, reasoning_effort="medium")
        if not calls:
            return text
        content = (f"<think>{thoughts}</think>\n" if thoughts else "") + text
        messages.append({"role": "assistant", "content": content, "tool_calls": calls})
        for each in calls:
            said = rig.call(each["function"]["name"], each["function"]["arguments"])
            messages.append({"role": "tool", "tool_call_id": each["id"], "content": said})


def plain(question) -> str:
    """The title of a chat."""
    body = {
        "model": question.model,
        "messages": [{"role": "user", "content": '### Task:\nWrite a title. JSON format: {"title": "…"}'}],
        "stream": False,
        "max_completion_tokens": 1000,
    }
    with sent(question, "/v1/chat/completions", body) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def images(question) -> list:
    body = {"model": question.model, "prompt": "a tree", "n": 1, "size": "1024x1024", "response_format": "b64_json"}
    with sent(question, "/v1/images/generations", body) as answer:
        return [rig.picture(base64.b64decode(each["b64_json"])) for each in json.load(answer)["data"]]


def embeddings(question) -> list:
    with sent(question, "/v1/embeddings", {"input": rig.TEXTS, "model": question.model}) as answer:
        return [[len(each["embedding"]), each["embedding"][0]] for each in json.load(answer)["data"]]


def failure(error) -> int | None:
    return error.code if isinstance(error, urllib.error.HTTPError) else None


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools_stream=tools_stream,
    refused=plain,
    images=images,
    embeddings=embeddings,
)
