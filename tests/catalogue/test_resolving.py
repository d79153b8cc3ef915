"""Ids that clients carry inside mean what their provider has now of the same model, and nothing of another family."""

from __future__ import annotations

import pytest

from services.catalogue._resolving import Ids

OPENAI = ["gpt-5", "gpt-5-2026-08-07", "gpt-5-mini", "gpt-4-turbo", "gpt-4-turbo-2024-04-09", "gpt-4", "gpt-6-preview"]
OPENAI += ["o4-mini-2025-04-16", "o4-mini-2025-09-01", "gpt-5-chat-latest", "gpt-4.1-mini", "gpt-4-0613", "gpt-4o"]
GEMINI = ["gemini-3-pro", "gemini-2.5-flash", "gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash-preview-05-20"]
GEMINI += [
    "gemini-3.5-flash-preview",
    "gemini-2.0-flash-001",
    "gemini-4-pro-preview-11-20",
    "gemini-4-pro-preview-06-05",
]
BEDROCK = ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"]
BEDROCK += ["eu.anthropic.claude-haiku-4-5-20251001-v1:0", "amazon.nova-lite-v1:0", "global.anthropic.claude-opus-5"]
BEDROCK += ["anthropic.claude-3-5-sonnet-20241022-v2:0", "anthropic.claude-3-5-sonnet-20240620-v1:0"]
CLAUDE = [
    "claude-sonnet-4-5-20250929",
    "claude-opus-4-1-20250805",
    "claude-opus-4-20250514",
    "claude-3-5-haiku-20241022",
]


@pytest.mark.parametrize(
    ("listed", "name", "meant"),
    [
        (OPENAI, "gpt-5-latest", "gpt-5"),
        (OPENAI, "gpt-5-2026-01-01", "gpt-5"),
        (OPENAI, "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        (OPENAI, "gpt-5-preview", "gpt-5"),
        (OPENAI, "gpt-6", "gpt-6-preview"),
        (OPENAI, "o4-mini", "o4-mini-2025-09-01"),
        (OPENAI, "o4-mini-latest", "o4-mini-2025-09-01"),
        (OPENAI, "gpt-4-turbo-preview", "gpt-4-turbo"),
        (OPENAI, "gpt-4-0314", "gpt-4"),
        (OPENAI, "gpt-4-1106-preview", ""),
        (OPENAI, "gpt-4-32k", ""),
        (OPENAI, "gpt-5-chat", "gpt-5-chat-latest"),
        (OPENAI, "gpt-5.1", ""),
        (OPENAI, "gpt-5-nano", ""),
        (OPENAI, "gpt-7-latest", ""),
        (OPENAI, "1-mini", ""),
        (OPENAI, "gpt", ""),
        (OPENAI, "-latest", ""),
        (OPENAI, "2024-05-13", ""),
        (GEMINI, "gemini-3-pro-preview", "gemini-3-pro"),
        (GEMINI, "gemini-3-pro-preview-11-2025", "gemini-3-pro"),
        (GEMINI, "gemini-2.5-flash-preview-04-17", "gemini-2.5-flash"),
        (GEMINI, "gemini-2.5-flash-latest", "gemini-2.5-flash"),
        (GEMINI, "gemini-3.5-flash", "gemini-3.5-flash-preview"),
        (GEMINI, "gemini-2.0-flash", "gemini-2.0-flash-001"),
        (GEMINI, "gemini-2.0-flash-exp", "gemini-2.0-flash-001"),
        (GEMINI, "gemini-2.0-flash-thinking-exp-01-21", ""),
        (GEMINI, "gemini-4-pro", "gemini-4-pro-preview-11-20"),
        (GEMINI, "gemini-3-flash", ""),
        (BEDROCK, "anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        (BEDROCK, "claude-sonnet-4-5-20250929", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        (BEDROCK, "claude-sonnet-4-5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        (BEDROCK, "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
        (BEDROCK, "us.anthropic.claude-sonnet-4-5-20250101-v1:0", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        (BEDROCK, "us.anthropic.claude-haiku-4-5-20251001-v1:0", ""),
        (BEDROCK, "claude-opus-5", "global.anthropic.claude-opus-5"),
        (BEDROCK, "nova-lite", "amazon.nova-lite-v1:0"),
        (BEDROCK, "anthropic.claude-3-5-sonnet", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        (BEDROCK, "anthropic.claude-3-7-sonnet-20250219-v1:0", ""),
        (CLAUDE, "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        (CLAUDE, "claude-opus-4-latest", "claude-opus-4-20250514"),
        (CLAUDE, "claude-opus-4-1", "claude-opus-4-1-20250805"),
        (CLAUDE, "claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        (CLAUDE, "claude-3-5-sonnet-20241022", ""),
    ],
)
def test_what_an_id_means(listed: list[str], name: str, meant: str) -> None:
    """What is no preview before one that is, no day before a day, the latest day before others; one region alone."""
    assert Ids(listed).meant(name) == meant
