"""The three vendors, as strict as the tests' emulators, saying what a plot says."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from aiohttp import web

from services.text import json_object
from tests.compat.plots import Conversation, Plot, Stage, Turn, Wanted, thought
from tests.emulators import anthropic_requests, bedrock, gemini, openai
from tests.emulators.anthropic import AnthropicEmulator
from tests.emulators.bedrock import BedrockEmulator
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.openai_responses import SEALED, ResponsesEmulator, spaces_of
from tests.emulators.script import Script

OPENAI_MODEL: Final = "gpt-5-mini"
RESPONSES_MODEL: Final = "gpt-6-luna"
"""What is asked by the Responses API, as its row says."""


class Fakes:
    """All three, with one stage each."""

    def __init__(self) -> None:
        self.openai = FakeOpenAI()
        self.gemini = FakeGemini()
        self.claude = FakeClaude()
        self.anthropic = FakeAnthropic()
        self.all: tuple[Fake, ...] = (self.openai, self.gemini, self.claude, self.anthropic)

    def begin(self, plot: Plot, *, forgets: bool = False) -> None:
        """Play a plot from its beginning. `forgets` tells that the client keeps no thoughts of the model."""
        for fake in self.all:
            fake.refused.clear()
            fake.seen.clear()
            fake.stage = Stage(plot, proves=fake.proves, forgets=forgets)

    def problems(self, vendor: str) -> list[str]:
        """Return what went wrong at a vendor since `begin`."""
        fakes: dict[str, Fake] = {
            "openai": self.openai,
            "gemini": self.gemini,
            "claude": self.claude,
            "anthropic": self.anthropic,
        }
        fake = fakes[vendor]
        refused = [f"the provider refused with {status}: {words[:300]}" for status, words in fake.refused]
        others = [f"{type(each).__name__} was asked" for each in self.all if each is not fake and each.seen]
        unasked = [] if fake.stage.asked or refused else ["the provider was not asked"]
        return list(dict.fromkeys([*refused, *others, *unasked, *fake.stage.problems, *fake.stage.missing()]))


class FakeOpenAI(ResponsesEmulator):
    """OpenAI. Its chats tell reasoning as many that speak their protocol do, and take none back; by the Responses API
    what was thought before calls must be handed back, sealed."""

    proves = "never"
    stage = Stage(Plot(), proves=proves)

    def models(self) -> frozenset[str]:
        """Return the models that are asked by the Responses API."""
        return frozenset((RESPONSES_MODEL,))

    async def chat_of(self, request: web.Request) -> dict[str, Any]:
        """Return the request's body, or raise Refused."""
        body = await openai.json_of(request)
        openai.check_chat(body, models=openai.MODELS | {OPENAI_MODEL})
        assert isinstance(body, dict)
        return body

    def next_script(self) -> Script:
        """Return what the plot says."""
        asked = self.seen[-1]
        if not asked.path.endswith("/responses"):
            return self.stage.answer(_told_openai(asked.body))
        self.stage.prove("sealed")
        return self.stage.answer(_told_responses(asked.body))


class FakeGemini(GeminiEmulator):
    """Gemini 3: each first call of a turn has a signature of its own, and must be handed back with it."""

    proves = "always"
    stage = Stage(Plot(), proves=proves)

    def next_script(self) -> Script:
        """Return what the plot says."""
        return self.stage.answer(_told_gemini(self.seen[-1].body))


class FakeClaude(BedrockEmulator):
    """Claude on Bedrock: what was thought before calls must be handed back, signed, while it thinks."""

    proves = "thoughts"
    stage = Stage(Plot(), proves=proves)

    def next_script(self) -> Script:
        """Return what the plot says."""
        return self.stage.answer(_told_claude(self.seen[-1].body))


class FakeAnthropic(AnthropicEmulator):
    """Claude at Anthropic itself: as on Bedrock."""

    proves = "thoughts"
    stage = Stage(Plot(), proves=proves)

    def next_script(self) -> Script:
        """Return what the plot says."""
        return self.stage.answer(_told_anthropic(self.seen[-1].body))


Fake = FakeOpenAI | FakeGemini | FakeClaude | FakeAnthropic


def _told_openai(body: dict[str, Any]) -> Conversation:
    messages = body["messages"]
    turns = [
        Turn([Wanted(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message["tool_calls"]])
        for message in messages
        if message.get("tool_calls")
    ]
    parts = [part for each in messages if isinstance(each.get("content"), list) for part in each["content"]]
    choice = body.get("tool_choice")
    tools = frozenset(tool["function"]["name"] for tool in body.get("tools") or ())
    forced = choice["function"]["name"] if isinstance(choice, dict) else None
    if choice == "required" and len(tools) == 1:
        (forced,) = tools
    return Conversation(
        turns=turns,
        results=[json.dumps(m["content"], ensure_ascii=False) for m in messages if m["role"] == "tool"],
        tools=tools,
        forced=forced,
        said=json.dumps([m for m in messages if m["role"] not in ("system", "developer")], ensure_ascii=False),
        as_json=(body.get("response_format") or {}).get("type", "text") != "text",
        thinks=body.get("reasoning_effort") not in (None, "none"),
        pictures=sum(part["type"] == "image_url" for part in parts),
    )


def _told_responses(body: dict[str, Any]) -> Conversation:
    items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    turns: list[Turn] = []
    calls: list[Wanted] = []
    thoughts: list[dict[str, Any]] = []
    for item in [*items, {}]:
        kind = item.get("type", "message")
        if kind == "reasoning":
            thoughts.append(item)
        elif kind == "function_call":
            calls.append(Wanted(item["name"], json.loads(item["arguments"])))
        elif kind == "custom_tool_call":
            calls.append(Wanted(item["name"], item["input"]))
        elif calls and (kind != "message" or item.get("role") != "assistant"):
            first = thoughts[0] if thoughts else {}
            proof = first.get("encrypted_content")
            turns.append(Turn(calls, proof and proof.removeprefix(SEALED)))
            calls, thoughts = [], []
    parts = [part for item in items if isinstance(item.get("content"), list) for part in item["content"]]
    tools = frozenset(spaces_of(body))
    choice = body.get("tool_choice")
    forced = choice["name"] if isinstance(choice, dict) else None
    if choice == "required" and len(tools) == 1:
        (forced,) = tools
    effort = (body.get("reasoning") or {}).get("effort")
    return Conversation(
        turns=turns,
        results=[json.dumps(i["output"], ensure_ascii=False) for i in items if str(i.get("type")).endswith("_output")],
        tools=tools,
        forced=forced,
        said=json.dumps([i for i in items if i.get("role") not in ("system", "developer")], ensure_ascii=False),
        as_json=((body.get("text") or {}).get("format") or {}).get("type", "text") != "text",
        thinks=effort not in (None, "none"),
        pictures=sum(part["type"] == "input_image" for part in parts),
    )


def _told_gemini(body: dict[str, Any]) -> Conversation:
    turns, results = [], []
    for content in body["contents"]:
        parts = content["parts"]
        calls = [part for part in parts if "functionCall" in part]
        if calls:
            proof = base64.b64decode(calls[0].get("thoughtSignature", "")).removeprefix(gemini.SIGNATURE)
            made = [Wanted(p["functionCall"]["name"], p["functionCall"].get("args") or {}) for p in calls]
            turns.append(Turn(made, proof.decode(errors="replace")))
        results += [json.dumps(p["functionResponse"], ensure_ascii=False) for p in parts if "functionResponse" in p]
    declared = [f["name"] for tool in body.get("tools") or () for f in tool.get("functionDeclarations", ())]
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig", {})
    allowed = calling.get("allowedFunctionNames") or declared
    config = body.get("generationConfig") or {}
    return Conversation(
        turns=turns,
        results=results,
        tools=frozenset(declared),
        forced=allowed[0] if calling.get("mode") == "ANY" and len(allowed) == 1 else None,
        said=json.dumps(body["contents"], ensure_ascii=False),
        as_json=config.get("responseMimeType") == "application/json",
        pictures=sum("inlineData" in part for content in body["contents"] for part in content["parts"]),
        thinks=bool(config.get("thinkingConfig", {}).get("includeThoughts")),
    )


def _told_claude(body: dict[str, Any]) -> Conversation:
    turns, results = [], []
    for message in body["messages"]:
        blocks = message["content"]
        calls = [Wanted(b["toolUse"]["name"], b["toolUse"]["input"]) for b in blocks if "toolUse" in b]
        thoughts = [b["reasoningContent"]["reasoningText"] for b in blocks if "reasoningContent" in b]
        if calls:
            first = thoughts[0] if thoughts else {}
            proof = first.get("signature")
            turns.append(Turn(calls, proof and proof.removeprefix(bedrock.SIGNATURE), first.get("text")))
        results += [json.dumps(b["toolResult"], ensure_ascii=False) for b in blocks if "toolResult" in b]
    config = body.get("toolConfig", {})
    tools = frozenset(tool["toolSpec"]["name"] for tool in config.get("tools", ()) if "toolSpec" in tool)
    choice = config.get("toolChoice", {})
    forced = choice.get("tool", {}).get("name")
    if "any" in choice and len(tools) == 1:
        (forced,) = tools
    return Conversation(
        turns=turns,
        results=results,
        tools=tools,
        forced=forced,
        said=json.dumps(body["messages"], ensure_ascii=False),
        as_json="outputConfig" in body or json_object.INSTRUCTION in json.dumps(body.get("system", "")),
        pictures=sum("image" in block for message in body["messages"] for block in message["content"]),
        thinks="thinking" in (body.get("additionalModelRequestFields") or {}),
    )


def _told_anthropic(body: dict[str, Any]) -> Conversation:
    turns: list[Turn] = []
    results = []
    thinking = body.get("thinking", {})
    blocks = [block for message in body["messages"] for block in message["content"]]
    for message in body["messages"]:
        calls = [Wanted(b["name"], b["input"]) for b in message["content"] if b["type"] == "tool_use"]
        thoughts = [b for b in message["content"] if b["type"] == "thinking"]
        if calls:
            first = thoughts[0] if thoughts else {}
            text = first.get("thinking")
            if text == "" and thinking.get("display") == "omitted":
                text = thought(len(turns))  # left out by Claude, and read from the signature
            proof = first.get("signature")
            turns.append(Turn(calls, proof and proof.removeprefix(anthropic_requests.SIGNATURE), text))
        results += [json.dumps(b, ensure_ascii=False) for b in message["content"] if b["type"] == "tool_result"]
    tools = frozenset(tool["name"] for tool in body.get("tools", ()))
    choice = body.get("tool_choice", {})
    forced = choice.get("name")
    if choice.get("type") == "any" and len(tools) == 1:
        (forced,) = tools
    return Conversation(
        turns=turns,
        results=results,
        tools=tools,
        forced=forced,
        said=json.dumps(body["messages"], ensure_ascii=False),
        as_json="format" in body.get("output_config", {}),
        pictures=sum(block["type"] == "image" for block in blocks),
        thinks=thinking.get("type") == "adaptive",
    )
