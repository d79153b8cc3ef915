"""Small disks for containers, in memory, that can be filled: volumes of an engine, which one container keeps."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from deploy.container.images import DATABASE_IMAGE
from deploy.container.trial import Engine, call, works

KEEPER: Final = "moa-disks"
"""The container that has all of them: what is in memory goes with the last who has it."""

_BLOCKS: Final = 2**20 // resource.getpagesize()
"""Of a tmpfs, in a megabyte. podman takes `size` for a quota of the disk under its volumes."""


class Disks:
    """Disks by the names of their volumes.

    Args:
        tools: The engine.
        sizes: In megabytes.
        network: What the keeper is removed with.
    """

    def __init__(self, tools: Engine, sizes: Mapping[str, int], network: str) -> None:
        self._run = tools.run
        removed(tools, sizes)
        for name, size in sizes.items():
            of = ("type=tmpfs", "device=tmpfs", f"o=nr_blocks={size * _BLOCKS},mode=1777")
            options = [word for each in of for word in ("--opt", each)]
            call(*self._run, "volume", "create", *options, name)
        volumes = [word for name in sizes for word in ("--volume", f"{name}:/disks/{name}")]
        words = ("--network", network, *volumes, "--entrypoint", "sleep", DATABASE_IMAGE, "infinity")
        call(*self._run, "run", "-d", "--name", KEEPER, *words)

    def fill(self, name: str) -> Sequence[str]:
        """Return the command that leaves no room on a disk."""
        return self.within(f"dd if=/dev/zero of=/disks/{name}/filler bs=64k 2>/dev/null; true")

    def free(self, name: str) -> Sequence[str]:
        """Return the command that gives it back."""
        return self.within(f"rm -f /disks/{name}/filler")

    def within(self, script: str) -> Sequence[str]:
        """Return the command that runs a script where the disks are."""
        return (*self._run, "exec", KEEPER, "sh", "-c", script)


def removed(tools: Engine, names: Iterable[str]) -> None:
    """Remove disks that no container has any more."""
    for name in names:
        works(*tools.run, "volume", "rm", "-f", name)
