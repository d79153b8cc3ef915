from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from random import Random

import pytest

from inference.training.loop import dice
from inference.training.pictures import Drawing, draw, plain, scenes
from inference.training.pictures.desk import desk
from inference.training.pictures.palette import HELD_OUT
from inference.training.rules import judge
from tests.pictures import picture


def test_the_products_tests_see_what_is_drawn_here() -> None:
    """The pictures that the product's tests keep as files are those of the generator, things and places included."""
    desks = (desk(dice(4242, i)) for i in range(100))
    fives = (desk(Random(f"4711-{n}")) for n in range(100))
    others = (scenes.scene(Random(f"99-{n}")) for n in range(100))
    wanted = {
        "desk": next(drawn for drawn in desks if len(drawn.found) >= 4),
        "five": next(drawn for drawn in fives if len(drawn.found) == 5),
        "house": scenes.house(dice(7)),
        "scene": next(drawn for drawn in others if "desk" not in str(drawn.found)),
    }
    for name, drawn in wanted.items():
        kept = picture(name)
        assert kept.image.tobytes() == drawn.image.tobytes(), name
        assert [vars(one) for one in kept.found] == [asdict(one) for one in drawn.found]


def test_a_seed_always_draws_the_same_picture() -> None:
    """Picture, caption and facts are functions of the seed alone."""
    first, second = Random(5), Random(5)
    for _ in range(60):
        one, two = draw(first), draw(second)
        assert one.image.tobytes() == two.image.tobytes()
        assert (one.caption, one.facts) == (two.caption, two.facts)
    assert draw(Random(6)).image.tobytes() != draw(Random(7)).image.tobytes()


@pytest.mark.parametrize("make", [plain.single, plain.count, plain.relation])
@pytest.mark.parametrize("held_out", [False, True])
def test_captions_match_drawings(make: Callable[..., Drawing], held_out: bool) -> None:
    """The pixel rules find at least 98% of the generator's own drawings to show what their captions say."""
    drawn = [make(Random(seed), held_out=held_out) for seed in range(100)]
    right = [judge(d.image, d.facts).all for d in drawn if d.facts]
    assert sum(right) >= 98


def test_the_rules_can_say_no() -> None:
    """A picture held against another's facts fails."""
    drawn = [plain.single(Random(seed)) for seed in range(60)]
    pairs = [(a, b) for a, b in pairwise(drawn) if a.facts != b.facts]
    assert not any(judge(a.image, b.facts).all for a, b in pairs if b.facts)


def test_held_out_pairs_are_never_drawn() -> None:
    """No picture of the training distribution shows a colour and shape that the scores ask for as unseen."""
    rng = Random(11)
    facts = [d.facts for d in (draw(rng) for _ in range(1500)) if d.facts]
    assert len(facts) > 900
    assert not {(f.colour, f.shape) for f in facts} & HELD_OUT
    assert not {(f.colour2, f.shape2) for f in facts} & HELD_OUT


def test_captions_come_in_both_languages() -> None:
    """Between a third and a half of the captions are Korean, and every picture is 128×128."""
    rng = Random(12)
    drawn = [draw(rng) for _ in range(400)]
    assert 0.3 < sum(not d.caption.isascii() for d in drawn) / len(drawn) < 0.55
    assert {d.image.size for d in drawn} == {(128, 128)}
