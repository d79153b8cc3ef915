"""Measure by pixel rules what the LoRAs do: whether pictures are framed, show a moa, and what else they show.

`python -m inference.training.lora_scores --image MODEL --loras FOLDER` prints the table of the model card.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.training import lora
from inference.training.loop import dice
from inference.training.lora_pictures import EDGE, FEATHERS, FRAME, moa, unframed
from inference.training.pictures import Drawing, plain
from inference.training.rules import judge
from inference.training.scores import HELD_OUT_SEED, Paint, Table, load_pipeline, markdown, painter

MOAS: Final = ("a moa", "a moa bird", "a moa on the grass", "모아", "풀밭 위의 모아")
SCENES: Final = ("a tree", "a boat on the sea", "a house with a red roof", "a yellow flower", "a red car", "a cat")
"""Most are like a moa on its meadow, and so would show one first."""
MOA_FROM: Final = 0.6
"""Likeness from which a picture shows a moa. The generator's own drawings have 0.96 to 1, its others at most 0.32."""
MIXES: Final[tuple[Mapping[str, float], ...]] = (
    {}, {"framed": 0.25}, {"framed": 0.5}, {"framed": 0.75}, {"framed": 1}, {"moa": 1}, {"framed": 1, "moa": 1},
)  # fmt: skip
"""What is measured: LoRAs and their scales."""
_GOLD: Final = 45.0  # RGB distance from a frame's colour at which a pixel belongs to it
_BROWN: Final = 60.0  # RGB distance from its feathers at which a pixel belongs to the moa
_SHIFT: Final = 12  # pixels to each side in which the moa is looked for


def frame(image: Image.Image) -> float:
    """Give the share of the edge's pixels that have the frame's colour; the two next to the picture are not asked."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    edge = np.ones(pixels.shape[:2], dtype=np.bool_)
    edge[EDGE - 2 : 2 - EDGE, EDGE - 2 : 2 - EDGE] = False
    return float((np.sqrt(((pixels - FRAME) ** 2).sum(axis=-1)) < _GOLD)[edge].mean())


def likeness(image: Image.Image) -> float:
    """Give how much of a moa a picture shows: overlap over union of its brown with a drawn moa's, 0 to 1."""
    brown = _brown(image)
    padded = np.pad(_template(), ((0, 0), (_SHIFT, _SHIFT)))
    width = brown.shape[1]
    return max(_overlap(brown, padded[:, at : at + width]) for at in range(2 * _SHIFT + 1))


def _overlap(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    return float((one & two).sum() / max(1, (one | two).sum()))


def _brown(image: Image.Image) -> NDArray[np.bool_]:
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    found: NDArray[np.bool_] = np.sqrt(((pixels - FEATHERS) ** 2).sum(axis=-1)) < _BROWN
    return found


@cache
def _template() -> NDArray[np.bool_]:
    drawn = [_brown(moa(dice(at)).image) for at in range(64)]
    return next(mask for mask in drawn if abs(float(np.nonzero(mask)[1].mean()) - 64.5) < 1.5)


@dataclass(frozen=True, slots=True)
class Effects:
    """What a mix of LoRAs makes of the same prompts, each a mean over pictures."""

    frame: float
    """Share of the edge that is a frame."""
    background: float
    """Of the plain shapes, inside of the frame where the mix draws one."""
    count: float
    colour: float
    shape: float
    moa: float
    """Share of prompts for a moa that show one."""
    leak: float
    """Share of scenes and plain shapes that show one, though nobody asked."""


def prompts(count: int) -> list[Drawing]:
    """Give drawings of one plain shape or of several alike, by turns, whose captions are held out."""
    made = (plain.single, plain.single, plain.count, plain.count)
    return [made[i % 4](dice(HELD_OUT_SEED, i), held_out=i % 2 == 1) for i in range(count)]


def effects(pictures: Mapping[str, Sequence[Image.Image]], asked: Sequence[Drawing], *, in_frame: bool) -> Effects:
    """Measure the pictures of `plain` (of `asked`, in order), `moas` and `scenes`."""

    plains = [unframed(image) if in_frame else image for image in pictures["plain"]]
    facts = [drawn.facts for drawn in asked if drawn.facts]
    verdicts = [judge(image, fact) for image, fact in zip(plains, facts, strict=True)]
    others = [*pictures["plain"], *pictures["scenes"]]
    return Effects(
        frame=fmean(frame(image) for images in pictures.values() for image in images),
        background=fmean(verdict.background for verdict in verdicts),
        count=fmean(verdict.count for verdict in verdicts),
        colour=fmean(verdict.colour for verdict in verdicts),
        shape=fmean(verdict.shape for verdict in verdicts),
        moa=fmean(likeness(image) >= MOA_FROM for image in pictures["moas"]),
        leak=fmean(likeness(image) >= MOA_FROM for image in others),
    )


def measure(paint: Paint, count: int, *, in_frame: bool) -> tuple[Effects, list[Image.Image]]:
    """Draw and measure `count` pictures of plain shapes, and every moa and scene once for each twenty of them."""
    asked = prompts(count)
    times = max(1, count // 20)
    groups = {"plain": [d.caption for d in asked], "moas": list(MOAS) * times, "scenes": list(SCENES) * times}
    pictures = {of: paint(words, HELD_OUT_SEED) for of, words in groups.items()}
    shown = [*pictures["plain"][:4], *pictures["moas"][:3], *pictures["scenes"][:5]]
    return effects(pictures, asked, in_frame=in_frame), shown


def _named(mix: Mapping[str, float]) -> str:
    return " + ".join(kind if scale == 1 else f"{kind} × {scale:.2f}" for kind, scale in mix.items()) or "none"


def table(image: Path, loras: Path, device: torch.device, count: int) -> tuple[Table, list[list[Image.Image]]]:
    """Give what each mix shows on `count` pictures of plain shapes and on moas and scenes, and some of the pictures."""
    found: Table = {}
    rows = []
    for mix in MIXES:
        pipeline = load_pipeline(image, device)
        for kind, scale in mix.items():
            lora.merge(pipeline, loras / kind, scale)
        effects_, shown = measure(painter(pipeline), count, in_frame="framed" in mix)
        found[_named(mix)] = {name: round(value, 3) for name, value in asdict(effects_).items()}
        rows.append(shown)
    return found, rows


def main() -> None:
    """Print the table, and save a sheet with a row for each mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--loras", type=Path, required=True, help="folder that holds framed and moa")
    parser.add_argument("--count", type=int, default=40, help="pictures of plain shapes a row")
    parser.add_argument("--sheet", type=Path, help="where to save a sheet of pictures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found, rows = table(options.image, options.loras, torch.device("cpu"), options.count)
    print(markdown(found, "LoRAs"))
    if options.sheet:
        page = Image.new("RGB", (len(rows[0]) * 132, len(rows) * 132), "white")
        for y, row in enumerate(rows):
            for x, image in enumerate(row):
                page.paste(image, (x * 132, y * 132))
        page.save(options.sheet)


if __name__ == "__main__":
    main()
