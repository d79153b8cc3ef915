"""Draw one sheet of pictures for a fixed list of prompts, to look at."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageDraw

from inference.training.scores import Paint

PROMPTS: Final = (
    "a red circle on a white background", "two blue squares", "a green triangle left of a yellow circle", "a sunset",
    "sunset over the ocean", "a desk with a monitor, a keyboard and a mouse", "a desk with a lamp", "파란 사각형 두 개",
    "빨간 배경에 하얀 별", "노을", "책상 위의 모니터, 키보드, 마우스", "노란 원 왼쪽에 초록 삼각형", "a red star",
    "a blue heart on a pink background", "a house with a blue roof", "a red car", "a yellow flower", "파란 자동차",
    "검은 고양이", "a night sky with a moon", "snowy mountains", "a boat on the sea", "a forest", "a happy face",
    "three purple hearts", "a small orange ring on a black background", "blue and white vertical stripes",
    "a gradient from red to yellow", "a purple star above a red square", "a pink ring right of a blue cross",
    "four pink stars on a cyan background", "a cup and a plant on a desk",
)  # fmt: skip
_COLUMNS: Final = 8
_CELL: Final = 132
_LABEL: Final = 16


def sheet(paint: Paint, seed: int = 0) -> Image.Image:
    """Give the sheet; Korean prompts are labelled by number, since Pillow's own font has no Hangul."""
    rows = -(-len(PROMPTS) // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * _CELL, rows * (_CELL + _LABEL)), "white")
    pen = ImageDraw.Draw(page)
    for i, (prompt, image) in enumerate(zip(PROMPTS, paint(list(PROMPTS), seed), strict=True)):
        x, y = i % _COLUMNS * _CELL, i // _COLUMNS * (_CELL + _LABEL)
        page.paste(image, (x, y))
        pen.text((x, y + 130), prompt[:22] if prompt.isascii() else f"(Korean) {i}", fill="black")
    return page
