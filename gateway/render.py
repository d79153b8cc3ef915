"""Write Envoy's configuration for given settings into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from gateway import bindings, bodies, config, contracts, script
from gateway.settings import EdgeSettings
from services.common.otlp import Collector


def render(settings: EdgeSettings, collector: Collector | None = None) -> Path:
    """Write `envoy.json`, and the contracts that it names, into the settings' folder; give its path.

    Traces go to `collector`.

    Raises FileNotFoundError when the descriptor set is not there (`make proto` writes it).
    """
    folder = settings.edge_dir
    folder.mkdir(parents=True, exist_ok=True)
    bound = bindings.read(settings.descriptors)
    described = folder / "contracts.binpb"
    described.write_bytes(contracts.for_transcoder(settings.descriptors.read_bytes()))
    path = folder / "envoy.json"
    rendered = config.bootstrap(
        settings, bound, script.render(bodies.script(settings)), contracts=described, collector=collector
    )
    # It may hold a collector's secret.
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(rendered, indent=1), encoding="utf-8")
    return path
