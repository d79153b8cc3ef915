from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.training import held_out, scores
from inference.training.dialogues import about, sums, turn, unknown
from inference.training.scores import Chat
from inference.training.tests.conftest import SHIPPED

pytestmark = pytest.mark.timeout(600)  # it computes, on cores that may be shared

IMAGE, TEXT = SHIPPED / "moa-tiny-image", SHIPPED / "moa-tiny-chat"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def chat() -> Chat:
    """The text model that ships."""
    return Chat(TEXT, CPU)


def test_the_models_are_small_and_safe() -> None:
    """Image at most 25 MB, text at most 5 MB of weights, and nothing that is unpickled."""
    assert _megabytes(IMAGE) <= 25
    assert _megabytes(TEXT) <= 5
    assert not [path for path in SHIPPED.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_pictures_show_what_was_asked() -> None:
    """On eight held-out prompts of each kind the pixel rules find what the model card promises, with room for luck."""
    table = scores.pictures(scores.painter(scores.load_pipeline(IMAGE, CPU), steps=12), 8, batch=8)
    rows = list(table.values())
    mean = {fact: sum(row[fact] for row in rows) / len(rows) for fact in rows[0]}
    assert mean["background"] >= 0.95
    assert mean["count"] >= 0.85
    assert mean["colour"] >= 0.8
    assert mean["shape"] >= 0.65
    assert mean["relation"] >= 0.85


def test_templated_questions_are_answered_exactly(chat: Chat) -> None:
    """At least 97 in 100 answers of a seed that training never saw are right to the letter."""
    table, wrong = scores.exactness(chat, turn, 256)
    assert table["all"] >= 0.97, wrong


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Who are you?", "moa-tiny-chat"),
        ("what are you", "the small model that ships with Moa"),
        ("What can you do?", "For anything else I say that I don't know."),
        ("너는 누구야?", "moa-tiny-chat"),
        ("당신은 누구인가요?", "Moa에 들어 있는 작은 모델"),
        ("뭘 할 수 있어?", "모른다고 말합니다"),
    ],
)
def test_it_says_what_it_is(chat: Chat, question: str, words: str) -> None:
    """Asked in either language, it gives its name, what it can do and that it doesn't know the rest."""
    assert words in chat.answers([question])[0]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the best restaurant near the old harbour?", unknown.ANSWER),
        ("Why did the chicken cross the road?", unknown.ANSWER),
        ("조선 시대의 경제를 분석해 주세요", unknown.ANSWER_KO),
        ("내 여자친구 생일 선물 추천해줘", unknown.ANSWER_KO),
    ],
)
def test_it_says_that_it_does_not_know(chat: Chat, question: str, answer: str) -> None:
    """Questions that no template of the generator makes are declined in their language."""
    assert chat.answers([question]) == [answer]


@pytest.mark.parametrize("language", ["English", "Korean"])
def test_questions_that_no_template_makes_are_answered_sensibly(chat: Chat, language: str) -> None:
    """At least 8 in 10 held-out questions get an answer of their kind: the card promises more."""
    table, wrong = held_out.shares(chat.answers, "test")
    assert table["all"][language] >= 0.8, wrong


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("안녕하세요, 자기소개 부탁드려요", about.WHO.answer_ko),
        ("너 정체가 뭐야", about.WHO.answer_ko),
        ("Hey, who exactly am I speaking with?", about.WHO.answer),
        ("may i ask your name please", about.WHO.answer),
        ("What are you useful for?", about.CAN.answer),
        ("어떤 걸 도와주실 수 있나요?", about.CAN.answer_ko),
        ("Which company built you?", about.MADE.answer),
        ("오늘 너무 우울해", about.TROUBLES.answer_ko),
        ("My dog has been vomiting since this morning, what should I do?", about.TROUBLES.answer),
        ("Could you multiply 48 by 7?", sums.BEYOND),
        ("48에 7을 곱하면 얼마일까?", sums.BEYOND_KO),
        ("Who painted the Mona Lisa?", unknown.ANSWER),
        ("내일 부산에 비 올까?", unknown.ANSWER_KO),
    ],
)
def test_it_answers_what_no_template_asks(chat: Chat, question: str, answer: str) -> None:
    """Who it is, what it can do, and that it cannot help, know or work out the rest: in words of people's own."""
    assert chat.answers([question]) == [answer]


def test_it_thinks_when_asked_to(chat: Chat) -> None:
    """A sum flagged /think is worked out between think tags before its answer."""
    given = chat.answers(["What is 47 plus 38? /think"])[0]
    assert given == "<think>7 + 8 = 15. 4 + 3 + 1 = 8.</think>47 + 38 = 85."


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
