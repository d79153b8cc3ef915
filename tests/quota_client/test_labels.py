"""What reports group requests by goes with them: into settlements, and into the metadata of a backend's call."""

from __future__ import annotations

import hashlib

import pytest

from services.quota_client.labels import LONGEST_USER_BYTES, NO_LABELS, Labels, labelled, read


@pytest.mark.parametrize(
    "labels",
    [
        NO_LABELS,
        labelled("openai", []),
        labelled("grpc", ["b", "a"]),
        labelled("openai", ["50% off", "ünï, cödé", "user:x"]),
    ],
)
def test_labels_survive_a_header(labels: Labels) -> None:
    """Whatever characters tags have: a header of a call takes visible ASCII alone."""
    header = labels.header()
    assert header.isascii()
    assert read(header) == labels


def test_a_user_is_a_tag() -> None:
    """As it is where it is short and printable, else by its digest; each tag is there once, in order."""
    assert labelled("openai", ["z"]).of_user("ann").tags == ("user:ann", "z")
    assert labelled("openai", ["user:ann"]).of_user("ann").tags == ("user:ann",)
    assert labelled("openai", ["z"]).of_user("").tags == ("z",)
    long = "é" * LONGEST_USER_BYTES
    for user in (long, "a\nb", "\ud800"):
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        assert NO_LABELS.of_user(user).tags == (f"user:{digest}",)
