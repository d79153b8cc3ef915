"""Which of a hub repository's files a model is loaded from.

A repository often holds the same weights several times: in other frameworks' forms, in other precisions, and all in one
file beside the parts (twice 24 GB in FLUX's). Only what is read is fetched.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

PIPELINE: Final = "model_index.json"
"""Lists a diffusers pipeline's parts, each in a folder of its name."""
UNUSED: Final = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Parts of pipelines that are not loaded here."""
OTHER_FORMS: Final = (
    *("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl", "*.h5", "*.msgpack"),
    *("*.onnx", "*.onnx_data", "*.gguf", "*.tflite"),
)
"""Patterns of weights in forms that are not loaded here."""
_WEIGHTS: Final = ".safetensors"
_SHARD: Final = r"(?:-\d+-of-\d+)?"
_NAMED: Final = re.compile(rf"(?:model|diffusion_pytorch_model){_SHARD}(?:\.(?P<variant>\w+))?{_SHARD}\.safetensors")


def variant_of(names: Iterable[str], wanted: str) -> str | None:
    """Return the variant to load from a folder's files: the wanted one, else the plain one (""), else the only one.

    None: the folder has no weights by the names that diffusers and transformers give them, or none of these.
    """
    there = {found["variant"] or "" for name in names if (found := _NAMED.fullmatch(name))}
    for choice in (wanted, ""):
        if choice in there:
            return choice
    return there.pop() if len(there) == 1 else None


def unread(files: Iterable[str], parts: Mapping[str, object] | None, wanted: str) -> list[str]:
    """List the weights among a repository's files that a model is not loaded from.

    Args:
        files: Paths of all files.
        parts: What `model_index.json` holds; None: it is no pipeline.
        wanted: The variant (fp16, …) to prefer; empty: the plain weights.
    """
    folders: dict[PurePosixPath, list[str]] = defaultdict(list)
    for file in files:
        path = PurePosixPath(file)
        if path.suffix == _WEIGHTS:
            folders[path.parent].append(path.name)
    skipped: list[str] = []
    for folder, names in folders.items():
        variant = variant_of(names, wanted)
        for name in names:
            named = _NAMED.fullmatch(name)
            other = variant is not None and (named is None or (named["variant"] or "") != variant)
            if other or (parts is not None and not _is_part(folder, parts)):
                skipped.append(str(folder / name))
    return skipped


def _is_part(folder: PurePosixPath, parts: Mapping[str, object]) -> bool:
    """Return whether a folder is that of a pipeline's part which is loaded."""
    name = str(folder)
    listed = parts.get(name)
    return isinstance(listed, list) and listed[:1] != [None] and name not in UNUSED


def variant_in(folder: Path, wanted: str) -> str | None:
    """Return the variant to load from a folder here, as `from_pretrained` takes it: None for the plain one."""
    return variant_of((file.name for file in folder.glob(f"*{_WEIGHTS}")), wanted) or None
