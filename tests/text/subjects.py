"""The adapters under the contract suite: one row each, with its emulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.emulators import anthropic_requests, aws
from tests.emulators.anthropic import AnthropicEmulator
from tests.emulators.azure import AzureEmulator
from tests.emulators.base import Emulator
from tests.emulators.bedrock import CLAUDE, BedrockEmulator
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.openai_responses import ResponsesEmulator
from tests.text.harness import Row

TIMEOUTS = {"connect_s": 30, "first_token_s": 30, "idle_s": 30}
"""So long that only a test of silence reaches one, however slow the machine."""
EVERYTHING = ("vision", "tools", "json", "json_schema", "logprobs", "candidates", "seed", "reasoning")
REASONS = (
    "upstream_auth",
    "model_not_found",
    "context_too_long",
    "content_policy",
    "upstream_rejected",
    "upstream_rate_limited",
    "upstream_failed",
    "upstream_overloaded",
    "upstream_timeout",
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An adapter and the emulator of what it speaks to."""

    name: str
    emulator: Callable[[], Emulator]
    provider: Callable[[Emulator], Row]
    """The catalogue row of the provider, without id, makes and timeouts."""
    environment: Mapping[str, str]
    model: str
    """The upstream's name of a plain model."""
    reasoning_model: str
    """The upstream's name of a model that takes reasoning options."""
    prompt_of: Callable[[Any], str]
    """Read the last user text back out of a request that the emulator saw."""
    lacks: frozenset[str] = frozenset()
    """What the protocol cannot do: contract tests of it expect Unsupported."""
    reasons: Sequence[str] = REASONS
    """Reasons that the protocol can tell apart by status and typed code."""
    model_row: Row = field(default_factory=dict)
    crosses: bool = True
    """Whether it is one of the providers that each dialect is tried with."""

    def providers(self, emulator: Emulator, **timeouts: float) -> list[Row]:
        """Return the catalogue's providers for a running emulator."""
        return [{"id": "p", "makes": "text", "timeouts": {**TIMEOUTS, **timeouts}, **self.provider(emulator)}]

    def models(self) -> list[Row]:
        """Return the catalogue's models: `m`, `thinker`, and `plain` that can do nothing but text."""
        row: Row = {"provider": "p", "capabilities": list(EVERYTHING), **self.model_row}
        return [
            {"id": "m", "upstream": self.model, **row},
            {"id": "thinker", "upstream": self.reasoning_model, **row},
            {"id": "plain", "upstream": self.model, "provider": "p"},
        ]

    def skip_without(self, ability: str) -> None:
        """Skip the test when the protocol lacks `ability`."""
        if ability in self.lacks:
            pytest.skip(f"the protocol has no {ability}")


def _last_item(body: Any) -> str:
    content = body["input"][-1]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


def _last_text(body: Any) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


SUBJECTS = [
    Subject(
        name="openai",
        emulator=OpenAIEmulator,
        provider=lambda emulator: {
            "adapter": "openai",
            "base_url": f"{emulator.url}/v1",
            "credentials": {"api_key": "OPENAI_API_KEY"},
            "options": {"max_tokens_field": "max_completion_tokens", "counts_tokens": True, "passes": "documented"},
        },
        environment={"OPENAI_API_KEY": "sk-good"},
        model="gpt-4o-mini",
        reasoning_model="o4-mini",
        prompt_of=_last_text,
        lacks=frozenset({"budget", "top_k"}),
    ),
    Subject(
        name="openai-responses",
        emulator=ResponsesEmulator,
        provider=lambda emulator: {
            "adapter": "openai",
            "base_url": f"{emulator.url}/v1",
            "credentials": {"api_key": "OPENAI_API_KEY"},
            "options": {"counts_tokens": True, "passes": "documented"},
        },
        environment={"OPENAI_API_KEY": "sk-good"},
        model="gpt-4o-mini",
        reasoning_model="o4-mini",
        prompt_of=_last_item,
        lacks=frozenset({"budget", "top_k", "stop", "candidates", "seed"}),
        model_row={"limits": {"method": "responses"}},
        crosses=False,
    ),
    Subject(
        name="server",
        emulator=OpenAIEmulator,
        provider=lambda emulator: {
            "adapter": "server",
            "base_url": emulator.url,
            "credentials": {"api_key": "KEY_OF_BOX"},
            "options": {"max_tokens_field": "max_completion_tokens", "passes": "documented"},
        },
        environment={"KEY_OF_BOX": "sk-good"},
        model="gpt-4o-mini",
        reasoning_model="o4-mini",
        prompt_of=_last_text,
        lacks=frozenset({"budget", "top_k", "count"}),
    ),
    Subject(
        name="azure",
        emulator=AzureEmulator,
        provider=lambda emulator: {
            "adapter": "azure",
            "base_url": emulator.url,
            "credentials": {"api_key": "AZURE_OPENAI_API_KEY"},
            "options": {"max_tokens_field": "max_completion_tokens", "api_version": "2024-10-21"},
        },
        environment={"AZURE_OPENAI_API_KEY": "azure-good"},
        model="chat-deployment",
        reasoning_model="thinking-deployment",
        prompt_of=_last_text,
        lacks=frozenset({"budget", "top_k", "count"}),
    ),
    Subject(
        name="gemini",
        emulator=GeminiEmulator,
        provider=lambda emulator: {
            "adapter": "gemini",
            "base_url": f"{emulator.url}/v1beta",
            "credentials": {"api_key": "GEMINI_API_KEY"},
        },
        environment={"GEMINI_API_KEY": "AIza-good"},
        model="gemini-2.5-flash",
        reasoning_model="gemini-2.5-flash",
        prompt_of=lambda body: str(body["contents"][-1]["parts"][0]["text"]),
        reasons=tuple(r for r in REASONS if r != "context_too_long"),
    ),
    Subject(
        name="bedrock",
        emulator=BedrockEmulator,
        provider=lambda emulator: {
            "adapter": "bedrock",
            "base_url": emulator.url,
            "credentials": {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"},
            "options": {"region": aws.REGION},
        },
        environment={"AWS_ACCESS_KEY_ID": aws.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY},
        model=CLAUDE,
        reasoning_model=CLAUDE,
        prompt_of=lambda body: str(body["messages"][-1]["content"][0]["text"]),
        lacks=frozenset({"logprobs", "candidates", "seed", "reasoning_count"}),
        reasons=tuple(r for r in REASONS if r not in ("context_too_long", "content_policy")),
        model_row={"default_max_tokens": 4096},
    ),
    Subject(
        name="anthropic",
        emulator=AnthropicEmulator,
        provider=lambda emulator: {
            "adapter": "anthropic",
            "base_url": emulator.url,
            "credentials": {"api_key": "ANTHROPIC_API_KEY"},
        },
        environment={"ANTHROPIC_API_KEY": anthropic_requests.KEY},
        model=anthropic_requests.SONNET,
        reasoning_model=anthropic_requests.SONNET,
        prompt_of=_last_text,
        lacks=frozenset({"logprobs", "candidates", "seed"}),
        reasons=tuple(r for r in REASONS if r not in ("context_too_long", "content_policy")),
        model_row={"default_max_tokens": 4096},
    ),
]
