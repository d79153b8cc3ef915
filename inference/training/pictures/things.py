"""The things that scenes are made of: tree, boat, house, car, flower, cat, face."""

from __future__ import annotations

import math
from random import Random

from inference.training.pictures.canvas import Canvas, Drawing
from inference.training.pictures.palette import KOREAN, RGB, article, jittered, paint

_GLASS = (185, 225, 245)


def tree(canvas: Canvas, x: float, y: float, size: float, leaves: RGB, rng: Random) -> None:
    """Draw a fir or a round tree whose trunk stands at (x, y)."""
    canvas.mark("tree", x - size * 0.6, y - size * 1.8, x + size * 0.6, y)
    canvas.pen.rectangle([x - size * 0.13, y - size * 0.5, x + size * 0.13, y], fill=(115, 75, 45))
    if rng.random() < 0.5:
        crown = [(x, y - size * 1.9), (x - size * 0.6, y - size * 0.4), (x + size * 0.6, y - size * 0.4)]
        canvas.pen.polygon(crown, fill=leaves)
    else:
        canvas.pen.ellipse([x - size * 0.6, y - size * 1.6, x + size * 0.6, y - size * 0.4], fill=leaves)


def boat(canvas: Canvas, x: int, y: int, rng: Random) -> None:
    """Draw a boat with one sail, its deck at row y."""
    canvas.mark("boat", x - 42, y - 72, x + 42, y + 24)
    hull = [(x - 42, y), (x + 42, y), (x + 28, y + 24), (x - 28, y + 24)]
    canvas.pen.polygon(hull, fill=jittered((150, 75, 40), rng))
    canvas.pen.polygon([(x, y - 70), (x, y - 6), (x + 40, y - 6)], fill=(250, 250, 250))
    canvas.pen.rectangle([x - 3, y - 72, x + 1, y], fill=(90, 60, 40))


def house(canvas: Canvas, x: int, rng: Random) -> str:
    """Draw a house; give its caption."""
    roof = rng.choice(("red", "blue", "green", "brown", "purple", "orange", "black"))
    pen = canvas.pen
    canvas.mark("house", x - 80, 50, x + 80, 208)
    pen.rectangle([x - 62, 112, x + 62, 208], fill=jittered((245, 232, 205), rng))
    pen.polygon([(x - 80, 114), (x, 50), (x + 80, 114)], fill=paint(roof, rng))
    pen.rectangle([x - 14, 160, x + 14, 208], fill=(120, 75, 45))
    for side in (-40, 40):
        pen.rectangle([x + side - 13, 130, x + side + 13, 154], fill=(150, 205, 240))
    english = (f"a house with {article(roof)} roof", f"house, {roof} roof")
    return rng.choice((*english, f"{KOREAN[roof]} 지붕 집", f"{KOREAN[roof]} 지붕이 있는 집"))


def car(canvas: Canvas, x: int, rng: Random) -> str:
    """Draw a car; give its caption."""
    colour = rng.choice(("red", "blue", "green", "yellow", "black", "white", "orange", "purple", "pink"))
    fill, pen = paint(colour, rng), canvas.pen
    canvas.mark("car", x - 84, 94, x + 84, 206)
    pen.rounded_rectangle([x - 84, 132, x + 84, 182], 14, fill=fill)
    pen.polygon([(x - 52, 134), (x - 34, 94), (x + 34, 94), (x + 56, 134)], fill=fill)
    pen.polygon([(x - 40, 132), (x - 27, 102), (x - 4, 102), (x - 4, 132)], fill=_GLASS)
    pen.polygon([(x + 4, 132), (x + 4, 102), (x + 28, 102), (x + 43, 132)], fill=_GLASS)
    for side in (-48, 48):
        canvas.disc(x + side, 184, 22, (30, 30, 32))
        canvas.disc(x + side, 184, 9, (200, 200, 205))
    name = f"{article(colour)} car"
    return rng.choice((name, f"{name} on the road", f"{KOREAN[colour]} 자동차", f"도로 위의 {KOREAN[colour]} 자동차"))


def flower(canvas: Canvas, x: int, rng: Random) -> str:
    """Draw a flower; give its caption."""
    colour = rng.choice(("red", "yellow", "pink", "purple", "white", "orange", "blue"))
    y, fill, pen = 108, paint(colour, rng), canvas.pen
    canvas.mark("flower", x - 61, 46, x + 61, 222)
    pen.rectangle([x - 5, y, x + 5, 222], fill=(50, 130, 60))
    pen.ellipse([x + 2, 165, x + 44, 185], fill=(60, 150, 70))
    for i in range(6):
        canvas.disc(x + 36 * math.cos(i * math.pi / 3), y + 36 * math.sin(i * math.pi / 3), 25, fill)
    canvas.disc(x, y, 20, (120, 75, 30) if colour in ("yellow", "orange") else (250, 205, 60))
    return rng.choice((f"{article(colour)} flower", f"{colour} flower", f"{KOREAN[colour]} 꽃"))


def face(rng: Random) -> Drawing:
    """Draw a happy or a sad face."""
    canvas = Canvas(paint(rng.choice(("white", "cyan", "pink", "gray")), rng))
    mood = rng.choice(("happy", "sad"))
    canvas.mark("face", 42, 42, 214, 214)
    canvas.disc(128, 128, 86, paint("yellow", rng))
    for side in (-32, 32):
        canvas.pen.ellipse([128 + side - 11, 86, 128 + side + 11, 116], fill=(40, 30, 20))
    if mood == "happy":
        canvas.pen.arc([80, 104, 176, 182], 20, 160, fill=(60, 35, 20), width=11)
        return canvas.finish(rng.choice(("a happy face", "a happy smiley", "웃는 얼굴")))
    canvas.pen.arc([84, 152, 172, 224], 205, 335, fill=(60, 35, 20), width=11)
    return canvas.finish(rng.choice(("a sad face", "a sad yellow face", "슬픈 얼굴")))


def cat(rng: Random) -> Drawing:
    """Draw the face of a cat."""
    ground = rng.choice(("white", "cyan", "green", "pink", "yellow"))
    colour = rng.choice(("orange", "gray", "black", "brown", "white"))
    canvas = Canvas(paint("cyan" if colour == ground else ground, rng))
    fill, pen = paint(colour, rng), canvas.pen
    x, y = 128 + rng.randint(-8, 8), 140
    canvas.mark("cat", x - 92, 46, x + 92, 214)
    for side in (-1, 1):
        pen.polygon([(x + side * 78, y - 94), (x + side * 18, y - 62), (x + side * 72, y - 18)], fill=fill)
    pen.ellipse([x - 82, y - 72, x + 82, y + 74], fill=fill)
    eye = (250, 230, 120) if colour in ("black", "gray", "brown") else (50, 120, 70)
    for shift in (-34, 34):
        pen.ellipse([x + shift - 15, y - 28, x + shift + 15, y + 6], fill=eye)
        pen.ellipse([x + shift - 5, y - 24, x + shift + 5, y + 2], fill=(15, 15, 15))
    pen.polygon([(x - 9, y + 16), (x + 9, y + 16), (x, y + 27)], fill=(235, 130, 140))
    whisker = (200, 200, 200) if colour == "black" else (60, 60, 60)
    for side in (-1, 1):
        for slope in (-6, 8):
            pen.line([(x + side * 22, y + 28), (x + side * 92, y + 24 + slope * 2)], fill=whisker, width=3)
    name = f"{article(colour)} cat"
    return canvas.finish(rng.choice((name, f"the face of {name}", f"{KOREAN[colour]} 고양이")))
