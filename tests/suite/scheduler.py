"""Which worker runs what: whole files, and those that share a costly fixture together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.suite import recorded


class ByUnit(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands units to workers in the order in which the workers collected them: the longest first."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False  # it would sort by the number of tests
        super().__init__(config, log)
        self._units: dict[str, recorded.Unit] = {}

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Note what a worker found; the units follow from it."""
        super().add_node_collection(node, collection)
        if not self._units:
            self._units = recorded.units([recorded.file_of(test) for test in collection], recorded.read())

    def _split_scope(self, nodeid: str) -> str:
        return self._units[recorded.file_of(nodeid)].name
