"""What a model's row may say to its engine (`load.options`): an unknown word fails when the file is read.

What is None here, engines decide by themselves: by the device, or by what the model's files say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from services.catalogue import Model

Positive = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]


class TextOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a language model."""

    rows: Positive = 8
    """Answers that are decoded together."""
    max_waiting: Positive = 256
    """Answers of one flow that may wait."""
    engine: Literal["auto", "llama", "torch"] = "auto"
    """What must run it."""
    variant: str = ""
    """Weights to prefer where a source has several."""
    attention: str = "sdpa"
    """How transformers computes attention."""
    threads: Whole = 0
    """Of llama.cpp; 0: the process's."""
    n_gpu_layers: Whole = 0
    """Of llama.cpp."""


class Compilation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How blocks are compiled."""

    backend: str | None = None
    mode: str | None = None
    dynamic: bool | None = None
    fullgraph: bool | None = None


class ImageOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a diffusion model."""

    loras: Mapping[str, str] = {}
    """Adapters by name: where each is."""
    variant: str = ""
    """Weights to prefer where a source has several."""
    most_lanes: Positive | None = None
    """Lanes of one call."""
    fixed_lanes: Whole | None = None
    """Lanes to which calls are padded; 0: sizes are proven."""
    warm: tuple[tuple[Positive, Positive], ...] | None = None
    """Sizes that are run before the model is ready."""
    compile: Compilation | None = None
    """Whether, and how, the blocks that repeat are compiled."""
    attention: str | None = None
    """How attention is computed; None: as the model has it."""
    long_prompts: Literal["windows", "cut"] = "windows"
    """What becomes of a prompt that is longer than CLIP reads at once."""
    max_sequence_length: Positive = 256
    """Tokens that a T5 encoder reads."""
    quantize: Literal["int8", "float8"] | None = None
    """In what the weights are kept."""
    offload: tuple[str, ...] = ()
    """Encoders that come to the device for their calls alone."""
    memory_bytes: Whole = 0
    """Most bytes of one call; 0: what the device has left."""
    max_waiting: Positive = 64
    """Orders of one flow that may wait."""


class EmbeddingOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an encoder."""

    batch_tokens: Positive = 4096
    """Tokens of one call, padding included."""
    max_waiting: Positive = 4096
    """Texts of one flow that may wait."""


class VisionOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a model that looks at images."""

    max_waiting: Positive = 16
    """Looks of one flow that may wait."""
    variant: str = ""
    """Weights to prefer where a source has several."""
    attention: str = "sdpa"
    """How transformers computes attention."""
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    """How sure it must be; None: its family's own."""
    against: tuple[str, ...] = ()
    """What statements are held against; none: the family's own."""
    max_tokens: Positive = 512
    """Tokens of a caption."""
    beams: Positive = 3
    """Ways in which a caption is searched."""


S = TypeVar("S", bound=Struct)


def of(model: Model, shape: type[S]) -> S:
    """Return a model's options."""
    return msgspec.convert(model.load.options if model.load is not None else {}, shape)
