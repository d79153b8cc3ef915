"""The page of operations names what there is."""

from __future__ import annotations

import re

from deploy.local.stack import REPOSITORY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()


def test_metrics_and_events_of_incidents_exist() -> None:
    """Whoever has an incident looks for them by these names."""
    sources = "\n".join(
        path.read_text()
        for folder in ("services", "inference", "gateway")
        for path in (REPOSITORY / folder).rglob("*.py")
    )
    metrics = set(re.findall(r"`(moa_[a-z_]+)", PAGE))
    table = PAGE.partition("## Incidents by symptom")[2]
    events = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table)) - {"secrets.env"}
    assert len(metrics) > 10
    assert len(events) > 10
    assert [name for name in sorted(metrics | events) if f'"{name}"' not in sources] == []


def test_each_secret_setting_is_in_the_table_of_secrets() -> None:
    """One that nobody knows how to change is never changed."""
    table = PAGE.partition("## Secrets")[2].partition("\n## ")[0]
    settings = "\n".join(path.read_text() for path in (REPOSITORY / "services").rglob("settings.py"))
    secret = {f"MOA_{name.upper()}" for name in re.findall(r"^    (\w+): SecretStr", settings, re.MULTILINE)}
    assert {"MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER"} <= secret
    # The launcher makes it anew at each start, for the first log-in alone.
    secret.remove("MOA_SETUP_TOKEN")
    assert [name for name in sorted(secret) if name not in table] == []
