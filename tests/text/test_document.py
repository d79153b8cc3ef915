"""The page that is written from the suites."""

from pathlib import Path

from tests.image.subjects import SUBJECTS as IMAGE_SUBJECTS
from tests.providers import IMAGE, IMAGE_FAILURES, NO, OUT, SUITES, TEXT, TEXT_FAILURES
from tests.text.subjects import SUBJECTS as TEXT_SUBJECTS


def test_the_page_names_every_adapter_and_no_failure() -> None:
    """Whoever adds an adapter to a suite writes the page anew (`python -m tests.providers`)."""
    page = OUT.read_text()
    assert NO not in page
    for name in [*(s.name for s in TEXT_SUBJECTS), *(s.name for s in IMAGE_SUBJECTS)]:
        assert f" {name} |" in page


def test_the_page_is_made_of_tests_that_there_are() -> None:
    """A test that is called otherwise now would be told as one that fails."""
    for makes, columns in (("text", (*TEXT, *TEXT_FAILURES)), ("image", (*IMAGE, *IMAGE_FAILURES))):
        source = "".join(Path(f"tests/{makes}/test_{suite}.py").read_text() for suite in SUITES[makes])
        assert [test for _, test, _ in columns if f"def {test}(" not in source] == []
