"""The Helm chart as Helm renders it: `python -m tests.deploy.rendered_chart` writes the renders that are kept."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from deploy.build.chart import CHART, ROOT

PROFILES: Final = ("trial", "production", "gpu")
RELEASE, NAMESPACE = "moa", "ai"
KEPT: Final = Path(__file__).with_name("chart")

_SECRET: Final = "made at the install"


class DuplicateKey(ValueError):
    """A mapping has a key twice: Helm writes it, and Kubernetes refuses it."""


class Strict(yaml.CSafeLoader):  # type: ignore[misc]  # untyped
    """Reads YAML, and refuses a key that stands twice."""


def _mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DuplicateKey(f"a key stands twice{node.start_mark}")
    return found


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def profile(name: str) -> dict[str, Any]:
    """Return the values of a profile."""
    found: dict[str, Any] = msgspec.yaml.decode((ROOT / "deploy" / "helm" / "profiles" / f"{name}.yaml").read_bytes())
    return found


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that a release with these values has. Raises helm_python.HelmError for bad values."""
    import helm_python  # it starts threads, and a process that has them forks no workers

    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.load_all(text, Strict) if found]  # a safe loader


@functools.cache
def release(name: str) -> tuple[dict[str, Any], ...]:
    """Return the objects of a profile."""
    return tuple(rendered(profile(name)))


def as_kept(objects: tuple[dict[str, Any], ...]) -> str:
    """Return objects as they are kept: one after the other, without what is made at random."""
    pieces = []
    for found in objects:
        if found["kind"] == "Secret":
            found = {**found, "data": dict.fromkeys(found["data"], _SECRET)}
        pieces.append(yaml.safe_dump(found, sort_keys=True, width=120, allow_unicode=True))
    return "---\n".join(pieces)


if __name__ == "__main__":
    for each in PROFILES:
        (KEPT / f"{each}.yaml").write_text(as_kept(release(each)))
