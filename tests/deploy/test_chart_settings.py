"""Settings of the chart: they reach whom they are for, and what belongs elsewhere is refused with where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.local.topology import EDGE, HUB, INFERENCE, NETWORK, PROCESSES
from tests.deploy.rendered_chart import PROFILES, notes, profile, rendered
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


def _with_volume(path: str) -> dict[str, Any]:
    return {
        "extraVolumes": [{"name": "ours", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "ours", "mountPath": path}],
    }


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
        (
            {"keda": {"enabled": True}, "inference": {"pools": {"a": {"keda": {"minReplicas": 0}}}}},
            "inference.pools.a.keda.minReplicas is 1 at",
        ),
        (
            {"inference": {"pools": {"a": {"keda": {"minReplicas": 2}}}}},
            "pools.a.keda does nothing without keda.enabled",
        ),
        (
            {"inference": {"pools": {"a": {"resources": {"requests": {"nvidia.com/gpu": 1}}}}}},
            "the same of nvidia.com/gpu among requests and limits, or limits alone: 1 and none",
        ),
        (
            {"processes": {"text": {"serviceAccount": {"name": "x", "annotations": {"a": "b"}}}}},
            "serviceAccount of text: one that is there already has its own annotations",
        ),
        ({"settings": {"SSL_CERT_FILE": "/moa/ca/ca.crt"}}, "nothing is mounted at /moa/ca/ca.crt in pods of "),
        ({"inference": {"defaults": {"keda": {"maxReplicas": 3}}}}, "inference.defaults.keda does nothing without"),
        ({"inference": {"defaults": {"resources": None}}}, "missing property 'resources'"),
        ({"inference": {"defaults": {"settings": {"MOA_SIGNUP": "open"}}}}, "inference.defaults.settings.MOA_SIGNUP"),
        ({"defaults": {"replicas": 0}}, "replicas is 1 at least"),
        ({"processes": {"edge": {"replicas": 0}}}, "processes.edge.replicas is 1 at least"),
        ({"processes": {"largetext": {"replicas": 0}}}, "without largeRequests.enabled"),
        ({"settings": {"MOA_RESPONSES_DAYS": "0"}}, "settings.MOA_RESPONSES_DAYS: 0 is not more than 0"),
        ({"settings": {"MOA_RESPONSES_DAYS": "3651"}}, "settings.MOA_RESPONSES_DAYS: 3651 is more than 3650"),
        ({"settings": {"MOA_DATABASE_REPLICA_LAG_S": "-1"}}, "MOA_DATABASE_REPLICA_LAG_S: -1 is not more than 0"),
        ({"settings": {"MOA_LEDGER_RETENTION_DAYS": "3"}}, "MOA_LEDGER_RETENTION_DAYS: 3 is less than 35"),
        ({"settings": {"MOA_TRUSTED_HOPS": "1.5"}}, "'1.5' does not match"),
        ({"settings": {"MOA_SERVERS": "foo bar"}}, "'foo bar' does not match"),
        ({"settings": {"MOA_EGRESS_ALLOW": "https://a/b"}}, "'https://a/b' does not match"),
        ({"settings": {"MOA_PRELOAD": "a b"}}, "'a b' does not match"),
        ({"settings": {"MOA_OIDC_GROUPS": "groups.yaml"}}, "'groups.yaml' does not match"),
        (
            {"inference": {"pools": {"a": {"settings": {"MOA_MODEL_BYTES": "-1"}}}}},
            "a.settings.MOA_MODEL_BYTES: -1 is less",
        ),
        (
            {"secrets": {"generate": True, "providers": "p", "providersSet": ["OPENAI_APIKEY"]}},
            "no provider of the catalogue asks for OPENAI_APIKEY; they ask for ANTHROPIC_API_KEY, ",
        ),
        ({"image": {"repository": "https://r.example/moa"}}, "repository': 'https://r.example/moa' does not match"),
        ({"image": {"repository": "r.example/MOA"}}, "'r.example/MOA' does not match"),
        ({"image": {"repository": "r.example/moa:1.0"}}, "'r.example/moa:1.0' does not match"),
        ({"image": {"tag": "a:b"}}, "'a:b' does not match"),
        ({"podLabels": {"team": "a b c"}}, "'a b c' does not match"),
        ({"podLabels": {"t" * 70: "a"}}, "invalid propertyName 'tttt"),
        ({"podAnnotations": {"a b": "c"}}, "invalid propertyName 'a b'"),
        ({"database": {"existingSecret": "here", "podSelector": {"app": "postgres"}}}, "properties 'app' not allowed"),
        (
            {"networkPolicies": {"metricsFrom": [{"podSelector": {"app": "prometheus"}}]}},
            "properties 'app' not allowed",
        ),
        ({"defaults": {"affinity": {"nodeAffinity": {"required": {}}}}}, "properties 'required' not allowed"),
        ({"clusterDomain": "Cluster Local"}, "'Cluster Local' does not match"),
        ({"extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}]}, "no volume is called ca"),
        ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "or the chart has one of that name"),
        ({**_with_volume("/tmp")}, "it would hide /tmp"),
        ({**_with_volume("/moa/service-tls/"), "serviceTLS": {"enabled": True}}, "it would hide /moa/service-tls"),
        ({**_with_volume("/")}, "it would hide /moa"),
        ({"processes": {"text": {"env": [{"name": "A", "value": "1"}, {"name": "A"}]}}}, "env of text: A is told"),
        (
            {"ingress": {"enabled": True, "hosts": ["a.example.com"], "tls": [{"hosts": ["b.example.com"]}]}},
            "b.example.com is not among ingress.hosts",
        ),
        (
            {
                "defaults": {"resources": {"requests": {"cpu": None}}},
                "processes": {"auth": {"autoscaling": {"enabled": True}}},
            },
            "resources.requests.cpu, which is not there",
        ),
        (
            {
                "gatewayAPI": {
                    "enabled": True,
                    "parentRefs": [{"name": "g"}],
                    "backendTLS": {"hostname": "a.example.com"},
                }
            },
            "set tls.secret, or leave it out",
        ),
        (
            {"settings": {"MOA_COLOCATE": "text"}, "processes": {"text": {"serviceAccount": {"name": "bedrock"}}}},
            "go under processes.router",
        ),
    ],
)
def test_what_leads_nowhere_is_refused(values: dict[str, Any], says: str) -> None:
    """With where it belongs, or why it cannot be."""
    import helm_python  # see rendered_chart

    with pytest.raises(helm_python.HelmError, match=says):
        rendered({**INSTALLED, **values})


def test_what_is_odd_and_right_is_taken() -> None:
    """Numbers as text within their bounds, lists with blanks after commas, hosts with ports, a wildcard's certificate,
    and mounts beside the chart's own."""
    values = {
        **INSTALLED,
        **_with_volume("/moa/files"),
        "secrets": {"generate": True, "providers": "p", "providersSet": ["OPENAI_API_KEY", "GEMINI_API_KEY_FILE"]},
        "settings": {
            "MOA_RESPONSES_DAYS": "0.5",
            "MOA_LEDGER_RETENTION_DAYS": "35",
            "MOA_TRUSTED_HOPS": "",
            "MOA_EGRESS_ALLOW": "localhost:9000, 10.0.0.1,[::1]:80, hooks.example.com,",
            "MOA_PRELOAD": "tiny, owner/name@main",
            "MOA_SERVERS": "http://vllm:8000, two=https://two.example.com/v1",
            "MOA_OIDC_GROUPS": "/moa/files/groups.yaml",
        },
        "image": {"repository": "registry.example.com:5000/team/moa_x/moa"},
        "ingress": {
            "enabled": True,
            "hosts": ["a.example.com"],
            "tls": [{"hosts": ["*.example.com"], "secretName": "wild"}],
        },
        "podLabels": {"team.example.com/name": "A_1.b", "empty": ""},
        "inference": {"pools": {"default": {"replicas": 0}}},
    }
    told = environment(workloads(rendered(values))["moa-auth"])
    assert told["MOA_EGRESS_ALLOW"] == values["settings"]["MOA_EGRESS_ALLOW"]
    assert "MOA_TRUSTED_HOPS" not in told


_NAMES = (
    "name",
    "secretName",
    "claimName",
    "storageClassName",
    "serviceAccountName",
    "priorityClassName",
    "key",
    "value",
)


def _named(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, dict):
        yield from ((key, value) for key, value in found.items() if key in _NAMES)
    for each in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from _named(each)


def test_names_and_numbers_that_yaml_reads_as_something_else_stay_what_they_are() -> None:
    """`yes`, `null` and `12` are names of secrets, classes and pools like others; a large user id is written whole."""
    values = {
        "fullnameOverride": "on",
        "secrets": {"existing": "yes", "credentials": "12", "providers": "no", "providersSet": ["OPENAI_API_KEY"]},
        "database": {"existingSecret": "null", "key": "off"},
        "store": {"volume": {"storageClass": "1e3"}},
        "priorityClassName": "true",
        "runAsUser": 1000660000,
        "image": {"repository": "on"},
        "defaults": {"serviceAccount": {"name": "yes"}},
        "inference": {"pools": {"default": {"cache": {"existingClaim": "null"}}, "y": {}, "no": {}}},
        "serviceTLS": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "12"}}},
        "tls": {"secret": "true"},
        "ingress": {"enabled": True, "className": "on", "hosts": ["a.example.com"]},
    }
    found = rendered(values, "null")
    told = list(_named(found))
    assert {value for _, value in told} >= {"on", "yes", "12", "no", "null", "off", "1e3", "true"}
    assert [each for each in told if each[1] is not None and not isinstance(each[1], str | list)] == []
    for each in found:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "null"
    for template in workloads(found).values():
        assert template["spec"]["securityContext"]["runAsUser"] == 1000660000, "no exponent, which is no whole number"


def test_a_release_has_a_name_that_services_can_have() -> None:
    """Helm takes names with dots and digits first; services do not."""
    import helm_python  # see rendered_chart

    for name in ("v1.moa", "12"):
        with pytest.raises(helm_python.HelmError, match="which no service can be called"):
            rendered(dict(INSTALLED), name)


@pytest.mark.parametrize("before", ["ingress", "gatewayAPI"])
def test_who_installs_is_told_of_what_every_proxy_needs(before: str) -> None:
    """Behind an Ingress or a Gateway all callers have its address, until `MOA_TRUSTED_HOPS` counts it; profiles do."""
    proxies = {
        "ingress": {"enabled": True, "hosts": ["ai.example.com"]},
        "gatewayAPI": {"enabled": True, "parentRefs": [{"name": "public"}]},
    }
    values = {**INSTALLED, before: proxies[before]}
    assert "settings.MOA_TRUSTED_HOPS is not set" in notes(values)
    assert "MOA_TRUSTED_HOPS" not in notes({**values, "settings": {"MOA_TRUSTED_HOPS": 1}})
    assert "MOA_TRUSTED_HOPS" not in notes(dict(INSTALLED))


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_leave_nothing_to_be_told(name: str) -> None:
    """What is there to be copied says its public address and its proxies, where it has any."""
    said = notes(profile(name))
    assert "MOA_TRUSTED_HOPS" not in said
    assert ("MOA_PUBLIC_URL" in said) == (name == "trial")
