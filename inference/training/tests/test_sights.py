"""What the vision model learns from is true of the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.training import sights, vision
from inference.training.loop import dice
from inference.training.pictures import Found, draw
from inference.training.sights import NAMES, SCENES, Sight
from services.desk.domain.items import ITEMS

pytestmark = pytest.mark.timeout(600)  # it computes, on cores that may be shared


def test_what_is_noted_lies_in_the_picture() -> None:
    """Every picture but textures says what is in it, by known names, in boxes with area."""
    for i in range(300):
        found = draw(dice(3, i)).found
        assert {one.name for one in found} <= set(NAMES)
        assert all(0 <= one.left < one.right <= 1 and 0 <= one.top < one.bottom <= 1 for one in found)


def test_a_cell_tells_of_the_smaller_thing() -> None:
    """Where a cup stands on a desk the cells tell of the cup, and the desk's are not asked of them."""
    image = sights.sight(dice(1)).image
    cup = Found("cup", 0.25, 0.70, 0.50, 0.90)
    wanted = sights.targets([Sight(image, (Found("desk", 0, 0.625, 1, 1), cup))])
    names = list(NAMES)
    cells = wanted.named[0, :, names.index("cup")] == 1
    assert cells.any()
    assert (wanted.named[0, cells, names.index("desk")] == -1).all()
    assert wanted.boxes[0, cells][0].tolist() == pytest.approx([0.375, 0.8, 0.25, 0.2])
    assert (wanted.named[0, :, names.index("desk")] == 1).any()


def test_absent_words_are_absent() -> None:
    """What training says is never there is no name of what is; every item of the desk is one or the other."""
    named = {phrase for phrases in NAMES.values() for phrase in phrases}
    assert not named & set(sights.ABSENT)
    assert set(ITEMS) <= named | set(sights.ABSENT)
    assert set(SCENES) <= set(NAMES)


def test_the_shipped_model_scores_as_its_card_says() -> None:
    """On pictures that training never drew: desk or not at least .97, presence F1 at least .95, boxes at least .75."""
    found = vision.scores(Path("inference/models/moa-tiny-vision"), 60)
    assert found["desk yes/no"] >= 0.97
    assert found["presence F1"] >= 0.95
    assert found["mean IoU"] >= 0.75
