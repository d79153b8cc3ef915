"""Clients of Google's own library, for tests of its dialect."""

from __future__ import annotations

from google import genai
from google.genai import types

from tests.router.rig import KEY

SCHEMA = {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"]}
"""A schema that has what Google writes otherwise."""


def client_of(url: str, key: str = KEY, version: str | None = None) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, api_version=version))
