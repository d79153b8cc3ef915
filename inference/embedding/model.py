"""Load an encoder in the layout of sentence-transformers: a transformers model, its pooling, and its normalisation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from inference import machine, sources
from inference.tokenizing import Tokens, tokens_by
from services.catalogue import Model
from services.common.errors import ModelMisconfigured

Report = Callable[[str, float], None]
"""Told the stage and the part that is done."""

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder that is in memory."""

    network: Any
    tokenizer: Any
    device: str
    tokenize: Tokens
    before: list[int]
    after: list[int]
    """The special tokens that enclose a text."""
    longest: int
    """Tokens of the longest text, special ones included."""
    pooling: str
    """`mean` of a text's tokens, or the first one, `cls`."""
    normalises: bool
    revision: str
    size_bytes: int

    def tokens(self, text: str) -> list[int]:
        """Return a text's tokens without those that enclose it, however many they are."""
        return self.tokenize(text)

    def enclosed(self, tokens: list[int]) -> list[int]:
        """Return a text's tokens with the special ones that enclose a text."""
        return [*self.before, *tokens, *self.after]

    def cut(self, tokens: list[int]) -> list[int]:
        """Return the tokens up to the longest, with the ones that end a text still at their end."""
        over = len(tokens) - self.longest
        last = len(self.after)
        return tokens if over <= 0 else tokens[: len(tokens) - over - last] + tokens[len(tokens) - last :]

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return a vector for each list of tokens."""
        width = max(map(len, batch))
        padding = self.tokenizer.pad_token_id or 0
        with torch.inference_mode():
            ids = torch.tensor([[*tokens, *[padding] * (width - len(tokens))] for tokens in batch], device=self.device)
            seen = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in batch], device=self.device)
            hidden: Tensor = self.network(input_ids=ids, attention_mask=seen).last_hidden_state.float()
            if self.pooling == "cls":
                vectors = hidden[:, 0]
            else:
                weights = seen[:, :, None].float()
                vectors = (hidden * weights).sum(1) / weights.sum(1)
            if self.normalises:
                vectors = functional.normalize(vectors, dim=-1)
        return vectors.cpu().tolist()


def load(model: Model, report: Report) -> Encoder:
    """Load a catalogue model. Only safetensors are read, and no code of the repository is run.

    Raises ModelMisconfigured for a pooling that is neither the mean of the tokens nor the first one.
    """
    assert model.load is not None
    source = sources.fetch(model.load, report)
    folder = Path(source.folder)
    device = machine.device_of(model.load.device)
    report("weights", 0.4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = machine.dtype_of(model.load.dtype, device)
    network = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    network.eval().requires_grad_(False).to(device)
    pooled = _read(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    chosen = [name for name, value in pooled.items() if name.startswith("pooling_mode_") and value]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise ModelMisconfigured(f"model {model.id} pools in a way that is not known here: {', '.join(chosen)}")
    limits = (
        int(_read(folder / "sentence_bert_config.json", {}).get("max_seq_length") or 0),
        int(getattr(network.config, "max_position_embeddings", 0)),
        model.context_tokens,
    )
    modules = _read(folder / "modules.json", [])
    before, after = _enclosing(tokenizer)
    return Encoder(
        network=network,
        tokenizer=tokenizer,
        tokenize=tokens_by(tokenizer),
        before=before,
        after=after,
        device=device,
        longest=min(limit for limit in limits if limit),
        pooling=_POOLINGS[chosen[0]],
        normalises=any(str(part.get("type", "")).endswith("Normalize") for part in modules),
        revision=source.revision,
        size_bytes=sum(p.numel() * p.element_size() for p in network.parameters()),
    )


def _enclosing(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and behind a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    begin = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return whole[:begin], whole[begin + len(bare) :]


def _read(file: Path, absent: Any) -> Any:
    return json.loads(file.read_text()) if file.is_file() else absent
