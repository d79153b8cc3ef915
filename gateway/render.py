"""Write Envoy's configuration for given settings into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from gateway import bindings, config, script
from gateway.settings import EdgeSettings


def render(settings: EdgeSettings) -> Path:
    """Write `envoy.json` into the settings' folder and give its path.

    Raises FileNotFoundError when the descriptor set is not there (`make proto` writes it).
    """
    folder = settings.edge_dir
    folder.mkdir(parents=True, exist_ok=True)
    bound = bindings.read(settings.descriptors)
    path = folder / "envoy.json"
    path.write_text(json.dumps(config.bootstrap(settings, bound, script.render()), indent=1), encoding="utf-8")
    return path
