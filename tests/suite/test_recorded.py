"""How files of tests become units of work."""

from __future__ import annotations

from pathlib import Path

from tests.suite import recorded
from tests.suite.plugin import unrecorded
from tests.suite.recorded import File


def test_files_that_share_a_costly_fixture_are_one_unit() -> None:
    """Whoever shares a gateway runs in one worker, directly or through a third; its seconds are theirs together."""
    known = {
        "tests/a/test_1.py": File(1, ("gateway",)),
        "tests/a/test_2.py": File(2, ("gateway", "edge")),
        "tests/a/test_3.py": File(4, ("edge",)),
        "tests/a/test_4.py": File(8),
    }
    units = recorded.units(known, known)
    assert units["tests/a/test_1.py"] == units["tests/a/test_2.py"] == units["tests/a/test_3.py"]
    assert units["tests/a/test_1.py"].seconds == 7
    assert units["tests/a/test_4.py"] == recorded.Unit("tests/a/test_4.py", 8)


def test_a_fixture_of_the_same_name_elsewhere_is_another() -> None:
    """Two folders' `edge` are two fixtures, and may be set up by two workers."""
    known = {"tests/a/test_1.py": File(1, ("edge",)), "tests/b/test_1.py": File(1, ("edge",))}
    units = recorded.units(known, known)
    assert units["tests/a/test_1.py"] != units["tests/b/test_1.py"]


def test_an_unrecorded_file_counts_as_long() -> None:
    """A new file starts early, since it may be long."""
    assert recorded.units(["tests/a/test_new.py"], {})["tests/a/test_new.py"].seconds == recorded.UNKNOWN_S


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The record survives, a line a file."""
    known = {"tests/b.py": File(1.5, ("edge",)), "tests/a.py": File(0.1)}
    recorded.write(known, tmp_path / "recorded.json")
    assert recorded.read(tmp_path / "recorded.json") == known
    assert len((tmp_path / "recorded.json").read_text().splitlines()) == 4


def test_what_is_shared_and_not_recorded_is_told() -> None:
    """A file whose costly fixture is not recorded runs apart from those that share it, which the run's end says."""
    known = {"tests/a/test_1.py": File(1, ("edge",)), "tests/a/test_2.py": File(1)}
    shares = {"tests/a/test_1.py": {"edge"}, "tests/a/test_2.py": {"edge", "url"}, "tests/a/test_new.py": {"edge"}}
    assert unrecorded(shares, known) == {"tests/a/test_2.py": ["edge", "url"], "tests/a/test_new.py": ["edge"]}
    assert unrecorded({"tests/a/test_new.py": set()}, known) == {}
