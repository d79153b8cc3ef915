"""Pictures of many edits at once, in the memory of those that they pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import growth_pictures
from tests import stacks

AT_ONCE = 6
COPIES = 2.4
"""Two of each picture at the most, and what one of them takes on its way; of eight the share of that is smaller."""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_no_process_holds_more_than_two_copies_of_the_pictures_of_edits_at_once(tmp_path: Path) -> None:
    """Six edits of nine megabytes are with their provider together: the peaks of the router and of the image service
    stay below two and a half times what the pictures have, and no helper process of the latter has a copy beside them.
    """
    with growth_pictures.provider() as direct:
        environment = growth_pictures.environment(direct)
        with stacks.gateway(tmp_path, environment=environment, processes=growth_pictures.PROCESSES) as stack:
            grown = growth_pictures.grown_in(stack, direct, AT_ONCE)
    most_mb = COPIES * AT_ONCE * growth_pictures.PICTURE_BYTES / 2**20
    assert all(grown[name] < most_mb for name in growth_pictures.WATCHED), grown
    assert grown["beside image"] == 0
