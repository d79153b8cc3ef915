"""The page of operations names what there is."""

from __future__ import annotations

import re

import yaml

from deploy.local.stack import REPOSITORY
from deploy.local.topology import EDGE, EDGE_PROCESSES, INTERNAL_PORT, PROCESSES, worker

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


def test_prometheus_is_shown_every_process() -> None:
    """What the page has to copy asks each worker of the table, by its own path, and names the process as its job, which
    the alerts go by."""
    page = (REPOSITORY / "docs" / "observability.md").read_text()
    (config,) = [
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "scrape_" in text
    ]
    (job,) = config["scrape_configs"]
    workers = {name: process.name for process in PROCESSES for name in process.names}
    workers |= {worker(EDGE.name, number): EDGE.name for number in range(1, EDGE_PROCESSES + 1)}
    assert set(job["static_configs"][0]["targets"]) == workers.keys()
    for name, process in workers.items():
        labels = {"__address__": name}
        for rule in job["relabel_configs"]:
            found = re.fullmatch(
                rule.get("regex", "(.*)"), ";".join(labels[each] for each in rule.get("source_labels", ()))
            )
            assert found is not None
            labels[rule["target_label"]] = found.expand(rule.get("replacement", "$1").replace("$", "\\"))
        assert (labels["__address__"], labels["__metrics_path__"]) == (f"127.0.0.1:{INTERNAL_PORT}", f"/metrics/{name}")
        assert (labels["job"], labels["pod"], labels["instance"]) == (process, name, name)


def test_each_secret_setting_is_in_the_table_of_secrets() -> None:
    """One that nobody knows how to change is never changed."""
    table = PAGE.partition("## Secrets")[2].partition("\n## ")[0]
    settings = "\n".join(path.read_text() for path in (REPOSITORY / "services").rglob("settings.py"))
    secret = {f"MOA_{name.upper()}" for name in re.findall(r"^    (\w+): SecretStr", settings, re.MULTILINE)}
    assert {"MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER"} <= secret
    # The launcher makes it anew at each start, for the first log-in alone.
    secret.remove("MOA_SETUP_TOKEN")
    assert [name for name in sorted(secret) if name not in table] == []
