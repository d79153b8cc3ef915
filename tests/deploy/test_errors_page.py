"""The page of errors says what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.build import errors_page
from deploy.build.messages import Message, UnreadableMessage, has_words, messages
from moa.common.v1 import error_pb2
from services.common.errors import RULES


def test_the_page_is_as_the_code_is() -> None:
    """`python -m deploy.build.errors_page` writes it anew."""
    page = errors_page.PAGE.read_text(encoding="utf-8")
    assert page == errors_page.written(page)


def test_every_reason_has_a_next_step() -> None:
    """And so has every message: its own, or its reason's."""
    assert [reason for reason, rule in RULES.items() if not rule.next_step] == []


def test_a_message_without_a_sentence_of_its_own_is_refused(tmp_path: Path) -> None:
    """No message escapes the page because it is made in a way that the page cannot read."""
    path = tmp_path / "services" / "router" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    raise Unavailable(words())\n")
    with pytest.raises(UnreadableMessage, match=r"services/router/new\.py:2"):
        messages(tmp_path)


@pytest.mark.parametrize(
    ("code", "templates"),
    [
        ('raise NotFound(f"no {kind} {model.id!r}")', ["no <kind> <model id>"]),
        ('m = "one"\n    raise NotFound(m)', ["one"]),
        ('raise NotFound("one" if x else "two")', ["one", "two"]),
        ("raise NotFound(_WHY)", ["constant"]),
        ("raise NotFound(_TABLE[x])", ["first", "second"]),
        ('raise Gone("of a class of its own")', ["of a class of its own"]),
        ('pass\ndef g(error: NotFound, name):\n    error.message += f"; not {name}"', ["<message>; not <name>"]),
        ('raise ValueError("nobody outside sees this")', []),
    ],
)
def test_messages_are_found_however_they_are_written(tmp_path: Path, code: str, templates: list[str]) -> None:
    """As text, with gaps, by the name of a local or a constant, of classes that inherit a reason, and added later."""
    path = tmp_path / "services" / "router" / "new.py"
    path.parent.mkdir(parents=True)
    head = 'class Gone(NotFound): ...\n_WHY = "constant"\n_TABLE = {1: "first", 2: "second"}\n'
    path.write_text(f"{head}def f(x, kind, model):\n    {code}\n")
    found = messages(tmp_path)
    assert [each.template for each in found] == templates
    assert {each.reason for each in found} <= {error_pb2.REASON_NOT_FOUND}


def test_a_message_that_says_what_to_do_is_taken_at_its_word() -> None:
    """What stands behind its last semicolon, if that is what to do; else what the reason says."""
    reason = error_pb2.REASON_UNAVAILABLE
    own = Message(reason=reason, template="the model is being unloaded; try again", source="inference")
    assert errors_page.next_step(own) == "try again"
    other = Message(reason=reason, template="the queue is long; 5 wait", source="inference")
    assert errors_page.next_step(other) == RULES[reason].next_step


def test_every_message_has_words_of_its_own() -> None:
    """What joins others' sentences is listed as what it comes to: a row of gaps tells a reader nothing."""
    _, _, table = errors_page.PAGE.read_text(encoding="utf-8").partition("## Messages")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    sentences = [row.split(" | ")[1].replace("\\<", "<") for row in rows]
    assert [each for each in sentences if not has_words(each)] == []
    assert {"<field>: expected a list, got an object", "unknown field <field>"} <= set(sentences)
    assert has_words("<path> must be <words>")
    assert not has_words("<prefix><sentence>: <step>")
