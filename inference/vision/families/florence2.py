"""Florence-2: it writes what it sees, captions as text and objects as text with places in a thousandth of a side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from transformers import AutoTokenizer, Florence2ForConditionalGeneration

from inference.vision.families.base import Family, Files, Finding, boxed
from inference.vision.pixels import Reading

_CAPTION: Final = "What does the image describe?"
_OBJECTS: Final = "Locate the objects with category name in the image."
_NAMED: Final = "Locate the phrases in the caption: {}"
"""The three tasks as the model was taught them (arXiv:2311.06242; transformers, processing_florence2.py)."""
_BINS: Final = 1000
_PLACED: Final = re.compile(r"([^<>]+)((?:<loc_\d+>){4,})")
_PLACE: Final = re.compile(r"<loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)>")


def load(files: Files) -> Family:
    """Load a model in transformers' own format; the repository's code is not run."""
    network = files.network(Florence2ForConditionalGeneration)
    return Florence2(network, AutoTokenizer.from_pretrained(files.folder), Reading.of(files.folder), files)


class Florence2(Family):
    """Captions, objects, and objects by name.

    Args:
        network: The transformers model.
        tokenizer: Its tokenizer, with the places among its tokens.
        reading: How it reads images.
        files: Where it came from; options `beams` and `max_tokens`.
    """

    def __init__(self, network: Any, tokenizer: Any, reading: Reading, files: Files) -> None:
        super().__init__(network, 0.0)
        self._tokenizer = tokenizer
        self._reading = reading
        self._files = files
        blank = reading(Image.new("RGB", (8, 8))).to(files.device, files.dtype)
        with torch.inference_mode():
            self._image_tokens = int(network.get_image_features(pixel_values=blank).pooler_output.shape[1])

    def caption(self, image: Image.Image) -> str:
        """Describe an image."""
        text = re.sub(r"<[^>]*>", " ", self._written(image, _CAPTION))
        return " ".join(text.split()).rstrip(". ") or "an image"

    def detect(self, image: Image.Image, labels: Sequence[str], least: float) -> list[Finding]:
        """Find objects, or the labels. It writes no scores: what it writes it is sure of, and that is 1."""
        task = _NAMED.format(". ".join(labels) + ".") if labels else _OBJECTS
        wanted = {label.lower(): label for label in labels}
        found = []
        for phrase, places in _PLACED.findall(self._written(image, task)):
            name = phrase.strip(" .").lower()
            if not name or (labels and name not in wanted):
                continue
            for sides in _PLACE.findall(places):
                box = boxed(*((int(side) + 0.5) / _BINS for side in sides))
                if box is not None:
                    found.append(Finding(wanted.get(name, name), 1.0, box))
        return found

    def _written(self, image: Image.Image, task: str) -> str:
        """Return what the model writes, with its marks."""
        tokenizer, device = self._tokenizer, self._files.device
        # The image's tokens stand before the task; the network puts the image in their place.
        pixels = self._reading(image).to(device, self._files.dtype)
        places = [self.network.config.image_token_id] * self._image_tokens
        ids = torch.tensor([places + tokenizer(task)["input_ids"]], device=device)
        written = self.network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            max_new_tokens=int(self._files.options.get("max_tokens", 512)),
            num_beams=int(self._files.options.get("beams", 3)),
            do_sample=False,
        )
        text = tokenizer.decode(written[0], skip_special_tokens=False)
        for mark in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token):
            text = text.replace(mark, "")
        return str(text)
