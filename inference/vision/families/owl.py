"""OWL-ViT and OWLv2: objects by the labels that are asked for, and statements by whether what they name is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import AutoTokenizer, Owlv2ForObjectDetection, OwlViTForObjectDetection

from inference.vision.families.base import Family, Files, Finding, boxed, same
from inference.vision.pixels import Reading
from services.common.errors import InvalidField, Unsupported

_WORDING = "a photo of a {}"
"""How the authors word a label (arXiv:2205.06230, 4.2)."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a model that was trained on little knows, by label, each with the words for it in a caption."""

    scenes: Mapping[str, str]
    """What a whole image can be of."""
    things: Mapping[str, str]
    """What can be in it."""

    def sentence(self, scene: str, things: Sequence[str]) -> str:
        """Word what was found as one sentence."""
        named = [self.things[thing] for thing in things]
        listed = " and ".join([part for part in (", ".join(named[:-1]), *named[-1:]) if part])
        if not scene:
            return listed or "a picture"
        return f"{self.scenes[scene]} with {listed}" if listed else self.scenes[scene]


def load(files: Files) -> Family:
    """Load a model of either kind; a `vocabulary.json` beside it says what it knows."""
    kind = json.loads((files.folder / "config.json").read_text())["model_type"]
    network = files.network(Owlv2ForObjectDetection if kind == "owlv2" else OwlViTForObjectDetection)
    known = files.folder / "vocabulary.json"
    vocabulary = Vocabulary(**json.loads(known.read_text())) if known.is_file() else None
    # OWLv2 pads images to a square, OWL-ViT stretches them.
    reading = Reading.of(files.folder, square=kind == "owlv2")
    return Owl(network, AutoTokenizer.from_pretrained(files.folder), reading, vocabulary, files)


class Owl(Family):
    """Open-vocabulary detection.

    Args:
        network: The transformers model.
        tokenizer: Its tokenizer.
        reading: How it reads images.
        vocabulary: What it knows; None for a model that was trained on the open web.
        files: Where it came from; option `threshold`.
    """

    def __init__(
        self, network: Any, tokenizer: Any, reading: Reading, vocabulary: Vocabulary | None, files: Files
    ) -> None:
        super().__init__(network, float(files.options.get("threshold", 0.1)))
        self._tokenizer = tokenizer
        self._reading = reading
        self._vocabulary = vocabulary
        self._files = files
        self._longest = int(network.config.text_config.max_position_embeddings)

    def caption(self, image: Image.Image) -> str:
        """Name the likeliest scene and what is in it, in the words of the vocabulary."""
        known = self._vocabulary
        if known is None:
            return super().caption(image)
        labels = [*known.scenes, *known.things]
        scores, _ = self._compared(image, [self._worded(label) for label in labels])
        best = dict(zip(labels, scores.max(0).values.tolist(), strict=True))
        scene = max(known.scenes, key=lambda label: best[label])
        things = sorted((t for t in known.things if best[t] >= self.threshold), key=lambda t: -best[t])
        return known.sentence(scene if best[scene] >= self.threshold else "", things)

    def detect(self, image: Image.Image, labels: Sequence[str], least: float) -> list[Finding]:
        """Find the labels; of findings of one label that overlap the surest is kept."""
        if not labels:
            if self._vocabulary is None:
                raise InvalidField("labels are required: this model has none of its own", param="labels")
            labels = [*self._vocabulary.scenes, *self._vocabulary.things]
        scores, boxes = self._compared(image, [self._worded(label) for label in labels])
        found: list[Finding] = []
        for at, label in enumerate(labels):
            kept: list[Finding] = []
            for cell in scores[:, at].argsort(descending=True).tolist():
                score = float(scores[cell, at])
                if score < least:
                    break
                x, y, width, height = boxes[cell].tolist()
                box = boxed(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                if box is not None and not any(same(box, other.box) for other in kept):
                    kept.append(Finding(label, score, box))
            found += kept
        return found

    def judge(self, image: Image.Image, statements: Sequence[str]) -> list[float]:
        """Return how sure it is that what each statement names is there."""
        scores, _ = self._compared(image, list(statements))
        return [float(score) for score in scores.max(0).values]

    def _worded(self, label: str) -> str:
        """Word a label; a long one stands alone."""
        text = _WORDING.format(label)
        return text if self._fits(text) else label

    def _fits(self, text: str) -> bool:
        return len(self._tokenizer(text)["input_ids"]) <= self._longest

    def _compared(self, image: Image.Image, texts: list[str]) -> tuple[Any, Any]:
        """Return scores (cells, texts), and boxes (cells, 4) as centre and size in parts of the image."""
        if not all(map(self._fits, texts)):
            raise Unsupported(f"this model reads texts of at most {self._longest} tokens", param="model")
        read = self._tokenizer(texts, padding="max_length", max_length=self._longest, return_tensors="pt")
        pixels = self._reading(image).to(self._files.device, self._files.dtype)
        out = self.network(
            input_ids=read["input_ids"].to(self._files.device),
            attention_mask=read["attention_mask"].to(self._files.device),
            pixel_values=pixels,
        )
        stretch_x, stretch_y = self._reading.stretch(image)
        boxes = out.pred_boxes[0].float().cpu()
        boxes[:, 0::2] *= stretch_x
        boxes[:, 1::2] *= stretch_y
        return out.logits[0].float().sigmoid().cpu(), boxes
