"""CLIP and SigLIP: one vector an image, one a text. They judge statements; where things are they cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from inference.vision.families.base import Family, Files
from inference.vision.pixels import Reading

_AGAINST: Final = ("a photo of something else", "a photo")
"""What CLIP weighs a statement against: it only ever tells which of several texts fits better."""


def load(files: Files) -> Family:
    """Load a model of the kind."""
    network = files.network(AutoModel)
    return Clip(network, AutoTokenizer.from_pretrained(files.folder), Reading.of(files.folder), files)


class Clip(Family):
    """Zero-shot yes/no.

    Args:
        network: A CLIPModel, SiglipModel or Siglip2Model of fixed size.
        tokenizer: Its tokenizer.
        reading: How it reads images.
        files: Where it came from; options `threshold` and `against`.
    """

    def __init__(self, network: Any, tokenizer: Any, reading: Reading, files: Files) -> None:
        self._sigmoid = network.config.model_type.startswith("siglip")
        # SigLIP's own example gives a true statement 0.32, for its training weighs few matches against many texts.
        super().__init__(network, float(files.options.get("threshold", 0.1 if self._sigmoid else 0.5)))
        self._tokenizer = tokenizer
        self._reading = reading
        self._files = files
        self._against = tuple(files.options.get("against", _AGAINST))

    def judge(self, image: Image.Image, statements: Sequence[str]) -> list[float]:
        """Return each statement's probability: SigLIP's own, or with CLIP its share beside the texts against it."""
        texts = [*statements] if self._sigmoid else [*statements, *self._against]
        longest = self.network.config.text_config.max_position_embeddings
        read = self._tokenizer(texts, padding="max_length", max_length=longest, truncation=True, return_tensors="pt")
        # SigLIP was trained without a mask, on padded texts.
        names = ("input_ids",) if self._sigmoid else ("input_ids", "attention_mask")
        fed = {name: read[name].to(self._files.device) for name in names}
        pixels = self._reading(image).to(self._files.device, self._files.dtype)
        logits = self.network(pixel_values=pixels, **fed).logits_per_image[0].float()
        if self._sigmoid:
            return [float(p) for p in logits.sigmoid()]
        count = len(statements)
        against = logits[count:].logsumexp(0)
        return [float(torch.sigmoid(logit - against)) for logit in logits[:count]]
