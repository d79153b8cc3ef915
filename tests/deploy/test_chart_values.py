"""What the chart's values do: each that is set is there, and a wrong one is refused in words."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml

from deploy.build import chart
from deploy.build.chart_settings import TRACES, described, descriptions
from deploy.local.topology import CATALOGUE_KEPT, EDGE, PROCESSES, processes_of
from services.auth.settings import AuthSettings
from tests.deploy import operators
from tests.deploy.rendered_chart import profile, rendered

INSTALLED = {"secrets": {"generate": True}, "database": {"existingSecret": "here"}}
"""The least that an install says."""


def workloads(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pods' templates by what runs them."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in found
        if each["kind"] in ("Deployment", "StatefulSet", "Job")
    }


def environment(template: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in template["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "database.existingSecret"),
        ({"database": {"existingSecret": "here"}}, "secrets.existing"),
        ({**INSTALLED, "settings": {"MOA_SIGNUPS": "open"}}, "there is MOA_SIGNUP"),
        ({**INSTALLED, "settings": {"MOA_KEY_PEPPER": "x"}}, "into the secret that secrets.existing names"),
        ({**INSTALLED, "settings": {"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}}, "it is a secret"),
        ({**INSTALLED, "settings": {"OPENAI_API_KEY": "x"}}, "the secret that secrets.providers names"),
        ({**INSTALLED, "settings": {"MOA_DRAIN_S": 3}}, "the chart has drainSeconds"),
        ({**INSTALLED, "inference": {"pools": {"default": {"settings": {"MOA_SIGNUP": "open"}}}}}, "does not read it"),
        ({**INSTALLED, "providerSettings": {"OPENAI_API_KEY": "x"}}, "into the one that secrets.providers names"),
        ({**INSTALLED, "secrets": {"generate": True, "providers": "here"}}, "secrets.providersSet lists"),
        ({**INSTALLED, "processes": {"text": {"env": [{"name": "MOA_LISTEN"}]}}}, "MOA_LISTEN is told by the chart"),
        ({**INSTALLED, "gatewayAPI": {"hostnames": ["https://ai.example.com"]}}, "without a scheme"),
        ({"settings": {"MOA_SIGNUP": "sometimes"}}, "one of '', 'open', 'invite', 'closed'"),
        ({"settings": {"MOA_LOG_LEVEL": "loud"}}, "'loud' does not match"),
        ({"settings": {"MOA_TRUSTED_HOPS": 99}}, "maximum: got 99, want 16"),
        ({"settings": {"MOA_TRUSTED_HOPS": "two"}}, "MOA_TRUSTED_HOPS': 'two' does not match"),
        ({"settings": {"MOA_COLOCATE": "image"}}, "one of '', 'none', 'text'"),
        ({"settings": {"MOA_PUBLIC_URL": "ai.example.com"}}, "'ai.example.com' does not match"),
        ({"settings": None}, "missing property 'settings'"),
        ({"keda": {"tasks": None}}, "missing property 'tasks'"),
        ({"processes": {"auth": {"resources": {"requests": {"cpu": "lots"}}}}}, "'lots' does not match"),
        ({"processes": {"auth": {"resources": {"requests": {"cpu": -1}}}}}, "minimum: got -1"),
        ({"database": {"cidrs": ["10.0.0.0"]}}, "'10.0.0.0' does not match"),
        (
            {**INSTALLED, "processes": {"auth": {"resources": {"limits": {"memory": "128Mi"}}}}},
            "resources of auth: requests.memory 192Mi is more than its limit 128Mi",
        ),
        ({"secrets": {"existing": "My_Secret"}}, "'My_Secret' does not match"),
        ({"podAnnotations": {"inject": False}}, "got boolean, want string"),
        ({"traces": {"endpoint": "http://collector:4318/v1/traces"}}, "does not match"),
        ({"processes": {"routers": {}}}, "routers"),
        ({**INSTALLED, "serviceTLS": {"enabled": True, "certManager": {"enabled": True}}}, "issuerRef.name"),
        ({"replicas": 3}, "replicas"),
        ({"inference": {"pools": {"Big": {}}}}, "Big"),
        ({**INSTALLED, "ingress": {"enabled": True}}, "ingress.hosts"),
        ({**INSTALLED, "ingress": {"hosts": ["https://ai.example.com"]}}, "without a scheme"),
        ({**INSTALLED, "gatewayAPI": {"enabled": True}}, "parentRefs"),
        (
            {**INSTALLED, "gatewayAPI": {"enabled": True, "parentRefs": [{"name": "g"}]}, "tls": {"secret": "s"}},
            "gatewayAPI.backendTLS.hostname",
        ),
        ({**INSTALLED, "externalSecrets": {"enabled": True}}, "store.name"),
        ({**INSTALLED, "serviceTLS": {"certManager": {"enabled": True}}}, "needs serviceTLS.enabled"),
        ({**INSTALLED, "secrets": {"existing": "core", "providersSet": ["OPENAI_API_KEY"]}}, "secrets.providers"),
        ({**INSTALLED, "database": {"existingSecret": "x", "cloudNativePG": {"enabled": True}}}, "one of them"),
        ({**INSTALLED, "catalogue": "providers: ["}, "no YAML"),
        ({**INSTALLED, "catalogue": "providers: {a: b}"}, "are lists"),
        ({**INSTALLED, "catalogue": "providers: [a]\nmodels: []"}, "a provider is a map"),
        ({**INSTALLED, "ingress": {"hosts": ["AI.example.com"]}}, "no name of a host"),
        ({**INSTALLED, "podLabels": {"app.kubernetes.io/name": "x"}}, "by which pods are found"),
        (
            {**INSTALLED, "serviceTLS": {"certManager": {"duration": "1h", "renewBefore": "2h"}}},
            "renewBefore is not before",
        ),
        (
            {**INSTALLED, "catalogue": "providers: [{id: p, adapter: inference, pool: nosuch}]\nmodels: []"},
            "pool nosuch",
        ),
        ({**INSTALLED, "keda": {"tasks": {"minReplicas": 30}}}, "keda.tasks.minReplicas"),
        (
            {**INSTALLED, "processes": {"text": {"autoscaling": {"enabled": True, "minReplicas": 99}}}},
            "processes.text.autoscaling.minReplicas",
        ),
        (
            {**INSTALLED, "keda": {"enabled": True}, "processes": {"tasks": {"autoscaling": {"enabled": True}}}},
            "turn one off",
        ),
        ({**INSTALLED, "processes": {"auth": {"journal": {"size": "1Gi"}}}}, "only router and largerouter"),
        ({**INSTALLED, "inference": {"pools": {"a": {"autoscaling": {"enabled": True}}}}}, "inference.pools.a.keda"),
        ({**INSTALLED, "podDisruptionBudgets": {"maxUnavailable": 0}}, "maxUnavailable"),
        ({**INSTALLED, "zones": {"names": ["a" * 60]}}, "a shorter name"),
        ({**INSTALLED, "service": {"spec": {"type": "NodePort"}}}, "service.spec.type"),
        (
            {**INSTALLED, "processes": {"edge": {"autoscaling": {"enabled": True, "callsInFlight": 9}}}},
            "by CPU alone",
        ),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], says: str) -> None:
    """What is missing or unknown stops the install by name, and says what to set."""
    import helm_python  # see rendered_chart

    with pytest.raises(helm_python.HelmError, match=says):
        rendered(values)


def test_settings_are_written_whole() -> None:
    """Numbers of a million and more have no exponent, which no process reads; parts stay as they are."""
    settings = {"MOA_UNKNOWN_BYTES": 16_777_216, "MOA_MODEL_BYTES": 60_000_000_000, "MOA_SETTLE_EVERY_S": 0.25}
    written = {
        each["name"]: each.get("value")
        for found in rendered({**INSTALLED, "settings": settings})
        if found["kind"] in ("Deployment", "StatefulSet")
        for each in found["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert {name: written[name] for name in settings} == {
        "MOA_UNKNOWN_BYTES": "16777216",
        "MOA_MODEL_BYTES": "60000000000",
        "MOA_SETTLE_EVERY_S": "0.25",
    }


def test_what_is_ones_own_is_there() -> None:
    """Volumes reach all pods, migrations too; a pool's bounds and PostgreSQL's parameters are the given ones."""
    values = {
        **profile("gpu"),
        "extraVolumes": [{"name": "authority", "secret": {"secretName": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority"}],
        "podAnnotations": {"moa/secrets": "x", "mesh": "no"},
        "serviceAccount": {"annotations": {"role": "r"}},
        "keda": {"enabled": True},
    }
    values["inference"]["pools"]["chat"]["keda"] = {"maxReplicas": 2}
    found = rendered(values)
    for each in found:
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = each["spec"]["template"]
            assert "authority" in {volume["name"] for volume in template["spec"]["volumes"]}
            assert "/etc/authority" in {m["mountPath"] for m in template["spec"]["containers"][0]["volumeMounts"]}
            assert template["metadata"]["annotations"]["mesh"] == "no"
    most = {
        each["metadata"]["name"]: each["spec"]["maxReplicaCount"] for each in found if each["kind"] == "ScaledObject"
    }
    assert most == {"moa-tasks": 20, "moa-inference": 8, "moa-inference-chat": 2, "moa-inference-images": 8}
    (account,) = [each for each in found if each["kind"] == "ServiceAccount" and each["metadata"]["name"] == "moa"]
    assert account["metadata"]["annotations"] == {"role": "r"}
    trial = profile("trial")
    trial["database"]["cloudNativePG"]["parameters"] = {"max_connections": "300"}
    (database,) = [each for each in rendered(trial) if each["kind"] == "Cluster"]
    assert database["spec"]["postgresql"]["parameters"]["max_connections"] == "300"


def test_every_setting_is_told_of() -> None:
    """The schema has each setting that a process reads, and what it is; one without a text fails the build."""
    known = chart.schema(chart.SCHEMA.read_text())
    settings = {name for process in PROCESSES for name in chart.settings_of(process)}
    for name in settings | TRACES.keys():
        assert f'"{name}": {{' in known
    assert descriptions(AuthSettings)["signup"].startswith("Who may sign up")
    told = described(chart.VALUES)
    assert told["image", "digest"] == "sha256:…; goes before the tag."
    assert told[("drainSeconds",)] in known
    values = msgspec.yaml.decode(chart.VALUES.read_bytes())
    assert [name for name in values if (name,) not in told] == [], "values without a comment"


def test_routers_may_have_their_text_service_within() -> None:
    """With MOA_COLOCATE=text there are the processes of the table then, with providers' credentials, and nobody calls
    the text service that is gone."""
    found = rendered({**profile("production"), "settings": {"MOA_COLOCATE": "text"}})
    pods = workloads(found)
    table = {process.name: process for process in processes_of({"MOA_COLOCATE": "text"})}
    assert {f"moa-{name}" for name in table} == {name for name in pods if "migrate" not in name and "check" not in name}
    for name, process in table.items():
        (container,) = pods[f"moa-{name}"]["spec"]["containers"]
        assert container["command"] == ["python", "-m", process.module]
        assert ("envFrom" in container) == process.providers
        assert process.fixed.items() <= environment(pods[f"moa-{name}"]).items()
        assert ("MOA_TEXT_ADDRESS" in environment(pods[f"moa-{name}"])) is False
    policies = {each["metadata"]["name"]: str(each["spec"]) for each in found if each["kind"] == "NetworkPolicy"}
    assert "moa-text" not in policies
    assert all("'text'" not in policy for policy in policies.values())


def test_traces_are_as_their_page_says() -> None:
    """Each variable of docs/observability.md reaches all processes, credentials by reference, and who is told of a
    collector reaches it, wherever it is but at a cloud's address for nodes; without a port it is OTLP's."""
    settings = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=x", "OTEL_SDK_DISABLED": False}
    logs = {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:4320"}
    values = {**INSTALLED, "settings": {**settings, **logs}, "traces": {"endpoint": "https://collector.example.com/"}}
    found = rendered(values)
    for name, template in workloads(found).items():
        if "migrate" not in name:
            told = environment(template)
            assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://collector.example.com/"
            assert told["OTEL_RESOURCE_ATTRIBUTES"] == "deployment.environment=x"
            assert told["OTEL_SDK_DISABLED"] == "false"
            assert told["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] == "http://logs:4320"
            assert told["OTEL_EXPORTER_OTLP_HEADERS"]["secretKeyRef"]["optional"] is True
    for policy in (
        each for each in found if each["kind"] == "NetworkPolicy" and "migrate" not in each["metadata"]["name"]
    ):
        (collectors,) = [rule for rule in policy["spec"]["egress"] if {"namespaceSelector": {}} in (rule["to"] or ())]
        assert collectors["ports"] == [{"port": 4317}, {"port": 4320}]
        # A node's identity is told there, to whoever asks at port 80 or 443.
        blocks = [peer["ipBlock"] for peer in collectors["to"] if "ipBlock" in peer]
        assert {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]} in blocks
        assert all(block["except"] for block in blocks)
    page = (chart.ROOT / "docs" / "observability.md").read_text()
    assert {name for name in TRACES if f"`{name}`" in page} >= {"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_LOGS_EXPORTER"}


def test_clouds_know_pods_by_their_accounts() -> None:
    """One process may have a service account and labels of its own, as clouds' identities for workloads want them, and
    what its identity sets counts as a provider's variables for the others."""
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/moa"}
    values = {
        **INSTALLED,
        "secrets": {"generate": True, "providersSet": ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN"]},
        "providerSettings": {"AWS_REGION": "eu-central-1"},
        "processes": {
            "text": {"serviceAccount": {"annotations": role}},
            "image": {"serviceAccount": {"name": "pictures"}, "labels": {"azure.workload.identity/use": "true"}},
        },
    }
    found = rendered(values)
    pods = workloads(found)
    accounts = {each["metadata"]["name"]: each for each in found if each["kind"] == "ServiceAccount"}
    assert accounts.keys() == {"moa", "moa-text", "moa-migrate"}
    assert accounts["moa-text"]["metadata"]["annotations"] == role
    used = {name: template["spec"].get("serviceAccountName") for name, template in pods.items()}
    assert (used["moa-text"], used["moa-image"], used["moa-router"]) == ("moa-text", "pictures", "moa")
    assert pods["moa-image"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    for name in ("text", "image", "router", "tasks"):
        assert environment(pods[f"moa-{name}"])["AWS_REGION"] == "eu-central-1"
    assert "AWS_REGION" not in environment(pods["moa-auth"])
    assert environment(pods["moa-router"])["MOA_VARIABLES_SET"] == "AWS_ROLE_ARN,AWS_WEB_IDENTITY_TOKEN"


def test_jobs_have_accounts_of_their_own() -> None:
    """A cloud's role that a job is given is no other pod's; an account that is there already is used by name; and
    what is made for a job is there before it."""
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/schemas", "helm.sh/hook": "never"}
    values = {
        **profile("gpu"),
        "serviceAccount": {"annotations": {"role": "all"}},
        "migrations": {"serviceAccount": {"annotations": role}},
        "check": {"serviceAccount": {"name": "plain"}},
    }
    found = rendered(values)
    accounts = {each["metadata"]["name"]: each["metadata"] for each in found if each["kind"] == "ServiceAccount"}
    assert accounts.keys() == {"moa", "moa-migrate"}
    used = {name: template["spec"]["serviceAccountName"] for name, template in workloads(found).items()}
    jobs = {each["metadata"]["name"]: each for each in found if each["kind"] == "Job"}
    assert {name: used.pop(name) for name in jobs} == {
        "moa-check": "plain",
        "moa-migrate-auth": "moa-migrate",
        "moa-migrate-tasks": "moa-migrate",
    }
    given, first = accounts["moa-migrate"]["annotations"], jobs["moa-migrate-auth"]["metadata"]["annotations"]
    assert given["eks.amazonaws.com/role-arn"] == role["eks.amazonaws.com/role-arn"]
    assert given["helm.sh/hook"] == first["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(given["helm.sh/hook-weight"]) < int(first["helm.sh/hook-weight"])
    assert set(used.values()) == {"moa"}


def test_long_names_fit() -> None:
    """Releases with as long names as Helm takes, and pools likewise, have objects whose names Kubernetes takes; two
    that begin alike have none in common."""
    values = {**INSTALLED, "networkPolicies": {"enabled": False}, "inference": {"pools": {"images-of-people": {}}}}
    blue, green = (
        {
            (each["kind"], each["metadata"]["name"])
            for each in rendered(values, f"moa-production-eu-central-1-primary-zone-a-{colour}")
        }
        for colour in ("blue", "green")
    )
    assert not blue & green
    assert all(len(name) <= (52 if kind == "StatefulSet" else 63) for kind, name in blue)


def test_a_release_has_no_name_of_anothers_objects() -> None:
    """`moa-edge` would have the names of the edge's objects of a release `moa`."""
    import helm_python  # see rendered_chart

    with pytest.raises(helm_python.HelmError, match="fullnameOverride"):
        rendered(dict(INSTALLED), f"moa-{EDGE.name}")
    found = rendered({**INSTALLED, "fullnameOverride": "ours"}, f"moa-{EDGE.name}")
    assert {each["metadata"]["name"].partition("-")[0] for each in found} == {"ours"}


def test_a_catalogue_with_a_fault_ends_the_upgrade() -> None:
    """What a router reads at its start a job reads before all else, migrations too, from a file of its own with the
    new text; without a text of ones own there is nothing to read."""
    values = {**INSTALLED, "policies": "policies: []", "settings": {"MOA_SERVERS": "http://vllm:8000"}}
    found = rendered(values)
    jobs = {each["metadata"]["name"]: each for each in found if each["kind"] == "Job"}
    weights = {name: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for name, each in jobs.items()}
    (text,) = [each for each in found if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "moa-check"]
    weights["text"] = int(text["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert sorted(weights, key=weights.__getitem__)[:2] == ["text", "moa-check"]
    assert text["data"] == {"policies.yaml": "policies: []\n"}
    template = jobs["moa-check"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["command"] == ["python", "-m", "services.router", "--check"]
    told = environment(template)
    assert told["MOA_POLICIES"] == "/moa/config/policies.yaml"
    assert told["MOA_SERVERS"] == "http://vllm:8000"
    assert "MOA_CATALOGUE" not in told
    assert not [each for each in rendered(dict(INSTALLED)) if each["metadata"]["name"] == "moa-check"]


def test_the_last_good_catalogue_is_kept() -> None:
    """Each process that can start by a copy of the catalogue has a folder for it, on the volume of weights where there
    is one; routers have their own."""
    pods = workloads(rendered(profile("gpu")))
    for name, process in {process.name: process for process in PROCESSES}.items():
        mounts = {each["mountPath"]: each for each in pods[f"moa-{name}"]["spec"]["containers"][0]["volumeMounts"]}
        told = environment(pods[f"moa-{name}"])
        kept = CATALOGUE_KEPT in process.optional and "MOA_STATE_DIR" not in process.folders
        assert told.get(CATALOGUE_KEPT) == ("/moa/kept" if kept else None)
        assert ("/moa/kept" in mounts) == kept
    weights = pods["moa-inference"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "cache", "mountPath": "/moa/kept", "subPath": "catalogue"} in weights


def test_the_database_is_ones_own() -> None:
    """More of a Cluster's specification is laid over the chart's, a recovery in the place of a new one; PostgreSQL in
    another namespace is reached by migrations and processes alike, and by nobody else."""
    trial = profile("trial")
    trial["database"]["cloudNativePG"]["spec"] = {
        "bootstrap": {"recovery": {"source": "before"}},
        "walStorage": {"size": "5Gi"},
        "postgresql": {"parameters": {"work_mem": "8MB"}},
    }
    (cluster,) = [each["spec"] for each in rendered(trial) if each["kind"] == "Cluster"]
    assert cluster["bootstrap"] == {"recovery": {"source": "before"}}
    assert cluster["walStorage"] == {"size": "5Gi"}
    assert cluster["postgresql"]["parameters"] == {"max_connections": "200", "work_mem": "8MB"}
    elsewhere = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "databases"}}}
    found = rendered({**INSTALLED, "database": {"existingSecret": "here", "peers": [elsewhere], "port": 6432}})
    reached = {
        each["metadata"]["name"]: [rule["to"] for rule in each["spec"]["egress"] if {"port": 6432} in rule["ports"]]
        for each in found
        if each["kind"] == "NetworkPolicy"
    }
    assert {name: to for name, to in reached.items() if to} == {
        f"moa-{name}": [[elsewhere]] for name in ("auth", "tasks", "migrate")
    }


def test_what_a_platform_wants_of_pods() -> None:
    """Weights may lie on a volume that a pool shares, cards want a runtime class, OpenShift gives the user, a load
    balancer keeps callers' addresses, and a database has a port beside its pooler's."""
    values = profile("gpu")
    values["inference"]["pools"]["chat"] |= {
        "cache": {"existingClaim": "weights"},
        "runtimeClassName": "nvidia",
        "priorityClassName": "low",
    }
    values |= {
        "runAsUser": "assigned",
        "priorityClassName": "high",
        "service": {"type": "LoadBalancer", "spec": {"externalTrafficPolicy": "Local"}},
        "database": {**values["database"], "port": 6432, "extraPorts": [5432]},
    }
    found = rendered(values)
    for each in found:
        if (each["kind"], each["metadata"]["name"]) in (("StatefulSet", "moa-inference-chat"), ("Service", "moa")):
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
    pods = workloads(found)
    for template in pods.values():
        assert "runAsUser" not in template["spec"]["securityContext"]
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    chat = pods["moa-inference-chat"]["spec"]
    assert (chat["runtimeClassName"], chat["priorityClassName"]) == ("nvidia", "low")
    assert pods["moa-inference"]["spec"]["priorityClassName"] == "high"
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "weights"}} in chat["volumes"]
    sets = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "StatefulSet"}
    assert "volumeClaimTemplates" not in sets["moa-inference-chat"]
    assert "volumeClaimTemplates" in sets["moa-inference-images"]
    (public,) = [each["spec"] for each in found if (each["kind"], each["metadata"]["name"]) == ("Service", "moa")]
    assert public["externalTrafficPolicy"] == "Local"
    (auth,) = [
        each["spec"] for each in found if (each["kind"], each["metadata"]["name"]) == ("NetworkPolicy", "moa-auth")
    ]
    assert {"ports": [{"port": 6432}, {"port": 5432}], "to": [{"ipBlock": {"cidr": "10.20.0.0/24"}}]} in auth["egress"]


@pytest.mark.parametrize("authority", ["", "ours"])
def test_a_gateway_speaks_tls_to_an_edge_that_does(authority: str) -> None:
    """The route's service then has a policy that names whom the edge's certificate is for, and who signed it."""
    values = {
        **INSTALLED,
        "tls": {"secret": "edge"},
        "gatewayAPI": {
            "enabled": True,
            "parentRefs": [{"name": "public"}],
            "backendTLS": {"hostname": "ai.example.com", "caConfigMap": authority},
        },
    }
    found = {each["kind"]: each for each in rendered(values) if operators.knows(each)}
    for each in found.values():
        operators.validate(each)
    validation = found["BackendTLSPolicy"]["spec"]["validation"]
    assert validation["hostname"] == "ai.example.com"
    assert ("caCertificateRefs" in validation) == bool(authority)
    (target,) = found["BackendTLSPolicy"]["spec"]["targetRefs"]
    (backend,) = found["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
    assert target["name"] == backend["name"]


def test_examples_of_the_page_are_values() -> None:
    """What docs/kubernetes.md shows as values renders beside the least that an install says."""
    page = (chart.ROOT / "docs" / "kubernetes.md").read_text()
    shown = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind:" not in text]
    examples = [each for each in shown if each.keys().isdisjoint({"providers", "models"})]
    assert len(examples) >= 5
    for each in examples:
        assert rendered({**INSTALLED, **each})
