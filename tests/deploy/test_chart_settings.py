"""Settings of the chart: they reach whom they are for, and what belongs elsewhere is refused with where."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.local.topology import EDGE, HUB, INFERENCE, NETWORK, PROCESSES
from tests.deploy.rendered_chart import rendered
from tests.deploy.test_chart_values import INSTALLED, environment, workloads


def test_a_company_is_the_same_to_all_processes() -> None:
    """Its proxy and its authorities reach every process but the edge, which asks nobody outside, the authorities the
    migrations of a database too; its mirror of the hub reaches inference alone."""
    settings = {
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "HTTP_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": ".example.com",
        "SSL_CERT_FILE": "/etc/company/ca.crt",
        "HF_ENDPOINT": "https://hub.example.com",
        "HF_HUB_OFFLINE": True,
    }
    told = {
        name: environment(template)
        for name, template in workloads(rendered({**INSTALLED, "settings": settings})).items()
    }
    for process in PROCESSES:
        has = told[f"moa-{process.name}"].keys()
        assert has.isdisjoint(NETWORK) if process is EDGE else has >= set(NETWORK), process.name
        assert has.isdisjoint(HUB) != (process is INFERENCE)
    assert told["moa-inference"]["HF_HUB_OFFLINE"] == "true"
    for name in ("moa-migrate-auth", "moa-migrate-tasks"):
        assert told[name]["SSL_CERT_FILE"] == settings["SSL_CERT_FILE"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"settings": {"MOA_DATABASE_URL": "x"}}, "the chart has database.existingSecret"),
        ({"settings": {"HF_HOME": "/models"}}, "the chart has inference.pools.<pool>.cache"),
        ({"settings": {"HF_HUB_ETAG_TIMEOUT": 3}}, "goes into inference.pools.<pool>.env"),
        ({"settings": {"https_proxy": "http://proxy:3128"}}, "it is HTTPS_PROXY here"),
        ({"settings": {"SSL_CERT_FILE": "files/ca.crt"}}, "'files/ca.crt' does not match"),
        ({"keda": {"tasks": {"minReplicas": 0}}}, "there is no task API"),
        (
            {"keda": {"inference": {"minReplicas": 0}}},
            "keda.inference.minReplicas is 1 at least: what waits is told by",
        ),
        ({"inference": {"pools": {"a": {"keda": {"minReplicas": 0}}}}}, "inference.pools.a.keda.minReplicas is 1 at"),
        ({"defaults": {"replicas": 0}}, "replicas is 1 at least"),
        ({"processes": {"edge": {"replicas": 0}}}, "processes.edge.replicas is 1 at least"),
        ({"processes": {"largetext": {"replicas": 0}}}, "without largeRequests.enabled"),
    ],
)
def test_what_leads_nowhere_is_refused(values: dict[str, Any], says: str) -> None:
    """With where it belongs, or why it cannot be."""
    import helm_python  # see rendered_chart

    with pytest.raises(helm_python.HelmError, match=says):
        rendered({**INSTALLED, **values})
