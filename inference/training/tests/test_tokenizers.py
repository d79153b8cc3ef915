from __future__ import annotations

import pytest
from transformers import AutoTokenizer, CLIPTokenizer

from inference.training import captions, language_model
from inference.training.language_model import Rows
from inference.training.tests.conftest import SHIPPED

LINES = [
    "a red circle on a white background",
    "파란 사각형 두 개",
    "책상 위의 모니터, 키보드, 마우스",
    "zebra 안녕 🙂 42",
    "“ñandú”",
]


@pytest.mark.parametrize("line", LINES)
def test_captions_survive_the_tokenizer(line: str) -> None:
    """The image model's tokenizer gives back what it was given, in any script; CLIP's kind joins punctuation."""
    shipped = CLIPTokenizer.from_pretrained(SHIPPED / "moa-tiny-image" / "tokenizer", local_files_only=True)
    for tokenizer in (shipped, captions.make_tokenizer(1, captions=150)):
        text = tokenizer.decode(tokenizer(line).input_ids, skip_special_tokens=True)
        assert text.replace(" ", "") == line.replace(" ", "")


@pytest.mark.parametrize("line", [*LINES, "What is 12 + 7?", "<think>3 + 4 = 7.</think>7"])
def test_dialogue_survives_the_tokenizer(line: str) -> None:
    """The text model's tokenizer gives back every character it was given."""
    shipped = AutoTokenizer.from_pretrained(SHIPPED / "moa-tiny-chat", local_files_only=True)
    for tokenizer in (shipped, language_model.make_tokenizer(1, dialogues=150)):
        assert tokenizer.decode(tokenizer(line, add_special_tokens=False)["input_ids"]) == line


def test_digits_are_tokens_of_their_own() -> None:
    """A number has as many tokens as digits."""
    tokenizer = language_model.make_tokenizer(1, dialogues=150)
    assert len(tokenizer("1234567890", add_special_tokens=False)["input_ids"]) == 10


def test_training_rows_are_what_the_chat_template_writes() -> None:
    """The model is trained on exactly the tokens that serving renders; only the assistant's are scored."""
    tokenizer = language_model.make_tokenizer(1, dialogues=150)
    tokens, targets = Rows(tokenizer).encode(
        [{"role": "user", "content": "Hi 안녕"}, {"role": "assistant", "content": "2 + 3 = 5."}]
    )
    chat = [{"role": "user", "content": "Hi 안녕"}, {"role": "assistant", "content": "2 + 3 = 5."}]
    assert tokens == tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    scored = [token for token in targets if token >= 0]
    assert tokenizer.decode(scored) == "2 + 3 = 5.<|end|>"
