"""The contracts of import-linter cover what they say."""

from __future__ import annotations

import tomllib
from pkgutil import iter_modules

from deploy.local.stack import REPOSITORY


def test_every_module_of_inference_is_held_not_to_import_training() -> None:
    """A new module that the contract does not list could import training, which the product is made without."""
    read = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in read if each.get("forbidden_modules") == ["inference.training"]]
    modules = {f"inference.{module.name}" for module in iter_modules([str(REPOSITORY / "inference")])}
    assert set(contract["source_modules"]) == {"services", "gateway", *modules} - {"inference.training"}


def test_every_vendor_that_speaks_no_dialects_api_is_held_not_to_read_its_fields() -> None:
    """A further vendor, nothing of which reads vendors' fields, is listed: else it could begin to in silence."""
    read = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in read if each.get("forbidden_modules") == ["services.common.vendor_fields"]]
    listed = {name for name in contract["source_modules"] if name.startswith("services.providers.")}
    folders = {path.parent for path in (REPOSITORY / "services" / "providers").glob("*/telemetry.py")}
    folders |= {path.parent for path in (REPOSITORY / "services" / "providers").glob("*/image.py")}
    silent = {
        f"services.providers.{folder.name}"
        for folder in folders
        if not any("vendor_fields" in path.read_text() for path in folder.rglob("*.py"))
    }
    assert silent == listed
