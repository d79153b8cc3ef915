"""The page that is written from the suites."""

from tests.image.subjects import SUBJECTS as IMAGE_SUBJECTS
from tests.providers import NO, OUT
from tests.text.subjects import SUBJECTS as TEXT_SUBJECTS


def test_the_page_names_every_adapter_and_no_failure() -> None:
    """Whoever adds an adapter to a suite writes the page anew (`python -m tests.providers`)."""
    page = OUT.read_text()
    assert NO not in page
    for name in [*(s.name for s in TEXT_SUBJECTS), *(s.name for s in IMAGE_SUBJECTS)]:
        assert f" {name} |" in page
