"""The Helm chart as Helm renders it: `python -m tests.deploy.rendered_chart` writes the renders that are kept."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from deploy.build.chart import CHART, ROOT

PROFILES: Final = ("trial", "production", "gpu")
RELEASE, NAMESPACE = "moa", "ai"
KEPT: Final = Path(__file__).with_name("chart")

COMMON: Final = {
    "app.kubernetes.io/part-of": "moa",
    "app.kubernetes.io/instance": RELEASE,
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/version": "0.1.0",
    "helm.sh/chart": "moa-0.1.0",
}
"""Labels of every object and pod."""

WORKLOADS: Final = ("Deployment", "StatefulSet", "Job")
"""The kinds of objects that run pods."""

_SHORT: Final = 120
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


def rendered(values: dict[str, Any], name: str = RELEASE) -> list[dict[str, Any]]:
    """Return the objects that a release has with these values. Raises helm_python.HelmError for bad ones."""
    texts = [text for path, text in sorted(_files(values, name).items()) if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.load_all(text, Strict) if found]  # a safe loader


def notes(values: dict[str, Any]) -> str:
    """Return what whoever installs a release with these values is told."""
    return next(text for path, text in _files(values, RELEASE).items() if path.endswith("NOTES.txt"))


def _files(values: dict[str, Any], name: str) -> dict[str, str]:
    import helm_python  # it starts threads, and a process that has them forks no workers

    with helm_python.Chart.load(str(CHART)) as chart:
        found: dict[str, str] = chart.render(values, name=name, namespace=NAMESPACE)
    return found


@functools.cache
def release(name: str) -> tuple[dict[str, Any], ...]:
    """Return the objects of a profile."""
    return tuple(rendered(profile(name)))


def of_kind(name: str, *kinds: str) -> list[dict[str, Any]]:
    """Return the objects of a profile that are of these kinds."""
    return [found for found in release(name) if found["kind"] in kinds]


def pods(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each workload of a profile is called, and its pods' specification."""
    for found in of_kind(name, *WORKLOADS):
        yield found["metadata"]["name"], found["spec"]["template"]["spec"]


class _Compact(yaml.SafeDumper):  # type: ignore[misc]  # untyped
    """Writes what is short in one line: a variable, a probe, a mount."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, len(str(dict(mapping))) < _SHORT)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, len(str(sequence)) < _SHORT)


def as_kept(objects: tuple[dict[str, Any], ...]) -> str:
    """Return objects as they are kept: one after the other, without what is made at random, and what is the same of all
    (`COMMON`) or stands elsewhere as it is. What is short stands in one line."""
    pieces = []
    for each in objects:
        found = without_common(each)
        if found["kind"] == "Secret":
            found["data"] = dict.fromkeys(found["data"], _SECRET)
        if found["metadata"]["name"].endswith("-dashboard"):
            found["data"] = dict.fromkeys(found["data"], "files/dashboard.json")
        pieces.append(yaml.dump(found, Dumper=_Compact, sort_keys=True, width=160, allow_unicode=True))
    return "---\n".join(pieces)


def without_common(found: Any) -> Any:
    """Return a copy of an object, or of a part of one, without the labels that all have."""
    if isinstance(found, list):
        return [without_common(each) for each in found]
    if not isinstance(found, dict):
        return found
    copied = {key: without_common(value) for key, value in found.items()}
    if COMMON.items() <= copied.get("labels", {}).items():
        copied["labels"] = {key: value for key, value in copied["labels"].items() if key not in COMMON}
    return copied


if __name__ == "__main__":
    for each in PROFILES:
        (KEPT / f"{each}.yaml").write_text(as_kept(release(each)))
