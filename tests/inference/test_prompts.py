"""Prompts beyond a text encoder's window."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.image.ask import ImageAsk
from inference.image.families.prompts import windows
from services.common.errors import InvalidField, ModelMisconfigured, Unsupported
from tests.inference.bench import Bench, pixels
from tests.inference.pipes import TOKENIZER, built
from tests.laws import tries

LONG = "a small red circle to the left of a large blue square, " * 4
"""About 56 tokens: two windows of the tiny tokenizer's 32."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {name: built(name, root / name) for name in ("sd", "sdxl", "sd3", "flux")}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(TOKENIZER)


def count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


WORDS = st.lists(st.sampled_from(["red", "circle,", "빨간", "동그라미", "(desk:1.2)", "a", "🎨", "x" * 50, "\n", "  "]))


@settings(max_examples=tries(40), deadline=None)
@given(words=WORDS, room=st.integers(3, 30))
def test_windows_hold_all_of_a_prompt(tokenizer: Any, words: list[str], room: int) -> None:
    """Whatever the text, its windows put together are the text, none is too long, and one that fits is whole."""
    text = " ".join(words)
    made = windows(lambda piece: count(tokenizer, piece), text, room)
    assert "".join(made) == text
    assert all(count(tokenizer, part) <= room or len(part.strip()) == 1 for part in made)
    assert len(made) == 1 or count(tokenizer, text) > room


def test_windows_end_between_words(tokenizer: Any) -> None:
    """A prompt of ordinary words is split between two of them."""
    made = windows(lambda piece: count(tokenizer, piece), LONG, 30)
    assert len(made) > 1
    assert all(re.match(r"\s", part) for part in made[1:])


def ask(**given: Any) -> ImageAsk:
    usual: dict[str, Any] = {
        "prompt": "a red circle",
        "width": 64,
        "height": 64,
        "steps": 3,
        "guidance": 5.0,
        "seed": 4,
    }
    return ImageAsk(**usual | given)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_all_of_a_long_prompt_counts(folders: dict[str, Path], name: str, guidance: float) -> None:
    """What stands beyond the first window changes the picture, in the prompt and in the negative one; and a long prompt
    keeps its bytes in a crowd."""
    bench = Bench(folders[name])
    mix = [ask(prompt=LONG + end, guidance=guidance) for end in ("on green", "on black")]
    if guidance > 1:
        mix += [ask(negative=LONG + end) for end in ("on green", "on black")] + [ask()]
    alone = [bench.make(one)[0].files[0] for one in mix]
    assert len(set(alone)) == len(alone)
    assert [taken.files[0] for taken in bench.make(*mix)] == alone


def test_windows_are_what_the_plain_pipeline_takes(folders: dict[str, Path], tokenizer: Any) -> None:
    """A long prompt's picture is the plain pipeline's, given the encodings of the prompt's parts in a row."""
    import diffusers
    import torch

    made = Bench(folders["sd"]).make(ask(prompt=LONG))[0].files[0]
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folders["sd"], dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    parts = windows(lambda piece: count(tokenizer, piece), LONG, 30)
    with torch.inference_mode():
        shown, hidden = zip(*(pipeline.encode_prompt(part, "cpu", 1, True) for part in parts), strict=True)
        wanted = pipeline(
            prompt_embeds=torch.cat(shown, 1),
            negative_prompt_embeds=torch.cat(hidden, 1),
            num_inference_steps=3,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(4),
            width=64,
            height=64,
            output_type="np",
        ).images[0]
    assert np.abs(pixels(made) - (wanted * 255).round().astype(int)).max() <= 1


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("param", ["prompt", "negative_prompt"])
def test_beyond_what_is_read_is_refused(folders: dict[str, Path], name: str, param: str) -> None:
    """A prompt that the encoders do not read to its end is refused with its length; nothing is cut off in silence."""
    given = {"prompt": LONG * 4} if param == "prompt" else {"negative": LONG * 4}
    last = Bench(folders[name]).make(ask(**given))[0].events[-1]
    if (name, param) == ("flux", "negative_prompt"):
        assert isinstance(last.error, Unsupported)  # that family takes none at all
    else:
        assert isinstance(last.error, InvalidField)
        assert "tokens; this model reads at most" in last.error.message
    assert last.error.param == param


def test_a_model_may_be_left_at_its_first_window(folders: dict[str, Path], tokenizer: Any) -> None:
    """Set to `cut`, a long prompt is the plain pipeline's: what stands beyond the window changes nothing."""
    import diffusers
    import torch

    from inference.image.families import family_of

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folders["sd"], dtype=torch.float32)
    family = family_of(pipeline, {"long_prompts": "cut"})
    one, other = (family.condition(LONG + end, "", 1.0, 64, 64).lanes[0] for end in ("on green", "on black"))
    assert torch.equal(one["encoder_hidden_states"], other["encoder_hidden_states"])
    assert one["encoder_hidden_states"].shape[1] == tokenizer.model_max_length
    with pytest.raises(ModelMisconfigured, match="long_prompts"):
        family_of(pipeline, {"long_prompts": "shorten"})
