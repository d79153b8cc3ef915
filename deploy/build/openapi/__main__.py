"""Write `build/openapi.json`, from `build/moa.binpb`: `python -m deploy.build.openapi`."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.build.openapi.document import document

BUILD = Path(__file__).resolve().parents[3] / "build"


def main() -> None:
    made = document((BUILD / "moa.binpb").read_bytes())
    path = BUILD / "openapi.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    new.replace(path)
    print(f"openapi: {len(made['paths'])} paths in build/openapi.json")


if __name__ == "__main__":
    main()
