"""Write Envoy's configuration for given settings into a folder.

Envoy watches the files of listeners and clusters: whoever replaces them changes the configuration of running processes,
whose connections and streams go on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import bindings, bodies, certificates, config, contracts, routes, script, zones
from gateway.settings import EdgeSettings
from services.common.otlp import Collector

Json = dict[str, Any]

BOOTSTRAP: Final = "envoy.json"
WHOLE: Final = "whole.json"
_LISTENERS, _CLUSTERS = "listeners.json", "clusters.json"
_TYPE: Final = "type.googleapis.com/envoy.config."


class Rendered:
    """A configuration that was written.

    Args:
        folder: Where it lies.
        listeners, clusters: Their versions, which say what is in them.
        contracts: What the listeners read.
    """

    def __init__(self, folder: Path, *, listeners: str, clusters: str, contracts: Path) -> None:
        self.bootstrap = folder / BOOTSTRAP
        self.listeners = listeners
        self.clusters = clusters
        self._contracts = contracts

    def forget_earlier(self) -> None:
        """Delete what earlier configurations read."""
        for path in self._contracts.parent.glob("contracts*.binpb"):
            if path != self._contracts:
                path.unlink(missing_ok=True)


def render(settings: EdgeSettings, collector: Collector | None = None) -> Rendered:
    """Write the configuration, and the contracts that it names, into the settings' folder.

    Traces go to `collector`. Raises FileNotFoundError when the descriptor set is not there (`make proto` writes it).
    """
    folder = settings.edge_dir.resolve()
    whole, described = _whole(settings, collector)
    resources = whole.pop("static_resources")
    # Envoy wants the cluster by which it weighs zones to be there before it reads any other.
    edges = [each for each in resources["clusters"] if each["name"] == zones.EDGES]
    others = [each for each in resources["clusters"] if each["name"] != zones.EDGES]
    static: Json = {"static_resources": {"clusters": edges}} if edges else {}
    read = b"".join(path.read_bytes() for path in (settings.tls_cert, settings.tls_key) if path is not None)
    clusters = _watched(folder / _CLUSTERS, "cluster.v3.Cluster", others)
    # A certificate that was renewed has the name of the one before.
    listeners = _watched(folder / _LISTENERS, "listener.v3.Listener", resources["listeners"], read)
    sources = {
        f"{kind}_config": {"resource_api_version": "V3", "path_config_source": {"path": str(folder / name)}}
        for kind, name in (("lds", _LISTENERS), ("cds", _CLUSTERS))
    }
    node = {"id": "edge", "cluster": "moa", **zones.locality(settings.zone)}
    _write(folder / BOOTSTRAP, {**whole, **static, "node": node, "dynamic_resources": sources})
    return Rendered(folder, listeners=listeners, clusters=clusters, contracts=described)


def render_whole(settings: EdgeSettings, collector: Collector | None = None) -> Path:
    """Write the configuration as one file, which Envoy can validate; return its path. Raises as `render`."""
    path = settings.edge_dir.resolve() / WHOLE
    _write(path, _whole(settings, collector)[0])
    return path


def _whole(settings: EdgeSettings, collector: Collector | None) -> tuple[Json, Path]:
    """Return the configuration, and the file of contracts that it names."""
    folder = settings.edge_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bound = bindings.read(settings.descriptors)
    content = contracts.for_transcoder(settings.descriptors.read_bytes())
    # Envoy looks at a file again when its name is another.
    described = folder / f"contracts-{hashlib.sha256(content).hexdigest()[:16]}.binpb"
    described.write_bytes(content)
    for name, secret in certificates.secrets(settings).items():
        _write(folder / name, {"resources": [secret]})
    served = [(binding.verb, binding.template) for binding in bound if binding.service in routes.DIALECTS]
    lua = script.render(bodies.script(settings), served)
    return config.bootstrap(settings, bound, lua, contracts=described, collector=collector), described


def _watched(path: Path, kind: str, resources: list[Json], read: bytes = b"") -> str:
    """Write resources into a file that Envoy watches; return their version. `read` is what they read beside it."""
    content = json.dumps(resources, sort_keys=True).encode()
    version = hashlib.sha256(content + read).hexdigest()[:16]
    typed: list[Json] = [{"@type": _TYPE + kind, **resource} for resource in resources]
    if read:
        for each in typed:
            each["metadata"] = {"filter_metadata": {"moa.files": {"version": version}}}
    _write(path, {"version_info": version, "resources": typed})
    return version


def _write(path: Path, content: Json) -> None:
    """Put a file in its place at once, as Envoy's watch wants it. It may hold a collector's secret."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
    new.replace(path)
