"""The image adapters under the contract suite: one row each, with its emulator and the catalogue's own rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.emulators import aws, ideogram, stability
from tests.emulators.base import Emulator
from tests.emulators.bedrock_images import NOVA_CANVAS, ULTRA, BedrockImagesEmulator
from tests.emulators.gemini_images import GeminiImagesEmulator
from tests.emulators.ideogram import IdeogramEmulator
from tests.emulators.openai_images import AzureImagesEmulator, OpenAIImagesEmulator
from tests.emulators.stability import StabilityEmulator

ALL = frozenset(
    {
        "upstream_auth",
        "model_not_found",
        "content_policy",
        "upstream_rejected",
        "upstream_rate_limited",
        "upstream_failed",
        "upstream_overloaded",
        "upstream_timeout",
    }
)


TIMEOUTS = {"connect_s": 30, "first_token_s": 30, "idle_s": 30}
"""So long that only a test of silence reaches one, however slow the machine."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An adapter with one of its models."""

    name: str
    emulator: Callable[[], Emulator]
    provider: str
    model: str
    environment: Mapping[str, str]
    path: str = ""
    """What follows the emulator's address in the provider's."""
    options: Mapping[str, Any] | None = None
    reasons: frozenset[str] = ALL
    counts: tuple[int, int] | None = None
    """Tokens of prompt and completion that its emulator reports, where the provider counts them."""
    streams: bool = False
    """Whether its images can be streamed, with previews."""
    revises: bool = False
    """Whether the provider rewrites prompts and says so."""
    seed_of: Callable[[Any], Any] = field(default=lambda body: body["seed"])
    """Read the seed out of what the emulator saw."""

    def row(self, emulator: Emulator, **timeouts: float) -> dict[str, Any]:
        """Return what differs from the catalogue's row of the provider."""
        more: dict[str, Any] = {"timeouts": {**TIMEOUTS, **timeouts}}
        if self.options is not None:
            more["options"] = dict(self.options)
        return more


_OPENAI = {"OPENAI_API_KEY": "sk-good"}
_GEMINI = {"GEMINI_API_KEY": "AIza-good"}
_AWS = {"AWS_ACCESS_KEY_ID": aws.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY}
_BEDROCK_REASONS = ALL - {"content_policy"}

SUBJECTS = [
    Subject(
        name="gpt-image",
        emulator=OpenAIImagesEmulator,
        provider="openai-image",
        path="/v1",
        model="gpt-image-2.6-flare",
        environment=_OPENAI,
        counts=(11, 100),
        streams=True,
    ),
    Subject(
        name="dall-e-3",
        emulator=OpenAIImagesEmulator,
        provider="openai-image",
        path="/v1",
        model="dall-e-3",
        environment=_OPENAI,
        revises=True,
    ),
    Subject(
        name="azure",
        emulator=AzureImagesEmulator,
        provider="azure-openai-image",
        model="gpt-image-1-mini",
        environment={"AZURE_OPENAI_API_KEY": "azure-good"},
        counts=(11, 100),
        streams=True,
    ),
    Subject(
        name="gemini",
        emulator=GeminiImagesEmulator,
        provider="gemini-image",
        path="/v1beta",
        model="gemini-3.1-flash-image",
        environment=_GEMINI,
        counts=(11, 100),
        seed_of=lambda body: body["generationConfig"]["seed"],
    ),
    Subject(
        name="imagen",
        emulator=GeminiImagesEmulator,
        provider="gemini-image",
        path="/v1beta",
        model="imagen-4.0-generate-preview-06-06",
        environment=_GEMINI,
        reasons=ALL - {"content_policy"},
        revises=True,
    ),
    Subject(
        name="nova-canvas",
        emulator=BedrockImagesEmulator,
        provider="aws-bedrock-image",
        model=NOVA_CANVAS,
        environment=_AWS,
        options={"region": aws.REGION},
        reasons=_BEDROCK_REASONS,
        seed_of=lambda body: body["imageGenerationConfig"]["seed"],
    ),
    Subject(
        name="stability-on-bedrock",
        emulator=BedrockImagesEmulator,
        provider="aws-bedrock-image",
        model=ULTRA,
        environment=_AWS,
        options={"region": aws.REGION},
        reasons=_BEDROCK_REASONS,
    ),
    Subject(
        name="ideogram",
        emulator=IdeogramEmulator,
        provider="ideogram-image",
        model="V3",
        environment={"IDEOGRAM_API_KEY": ideogram.KEY},
        reasons=ALL - {"model_not_found"},
        revises=True,
        seed_of=lambda body: int(body["seed"]),
    ),
    Subject(
        name="stability-ultra",
        emulator=StabilityEmulator,
        provider="stability-image",
        model="stable-image-ultra",
        environment={"STABILITY_API_KEY": stability.KEY},
        seed_of=lambda body: int(body["seed"]),
    ),
    Subject(
        name="sd3.5",
        emulator=StabilityEmulator,
        provider="stability-image",
        model="sd3.5-large",
        environment={"STABILITY_API_KEY": stability.KEY},
        seed_of=lambda body: int(body["seed"]),
    ),
]

STREAMING = [subject for subject in SUBJECTS if subject.streams]
"""Those whose images can be streamed."""
