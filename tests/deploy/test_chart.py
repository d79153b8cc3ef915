"""The Helm chart: the same system as `make run` and the containers, as Kubernetes takes it."""

from __future__ import annotations

import base64
import copy
import functools
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from deploy.build import chart
from deploy.local import keep
from deploy.local.topology import (
    EDGE,
    PROCESSES,
    TASKS,
)
from gateway.address import addresses
from services.catalogue import load
from services.common.content_sealing import ContentKeys
from tests.deploy import operators
from tests.deploy.rendered_chart import (
    COMMON,
    KEPT,
    NAMESPACE,
    PROFILES,
    WORKLOADS,
    DuplicateKey,
    Strict,
    as_kept,
    of_kind,
    pods,
    profile,
    release,
    rendered,
)

each_profile = pytest.mark.parametrize("name", PROFILES)


def test_the_chart_knows_the_table() -> None:
    """What the templates go over, and the settings' names, are those of the one table of processes."""
    again = "python -m deploy.build.chart writes it"
    assert chart.TOPOLOGY.read_text() == chart.rendered(), again
    assert chart.SCHEMA.read_text() == chart.schema(chart.SCHEMA.read_text()), again
    assert chart.README.read_text() == chart.readme(chart.README.read_text()), again


@each_profile
def test_renders_as_it_did(name: str) -> None:
    """What Helm makes of each profile is what was looked at."""
    assert as_kept(release(name)) == (KEPT / f"{name}.yaml").read_text(), "python -m tests.deploy.rendered_chart"


@each_profile
def test_kubernetes_takes_it(name: str) -> None:
    """Every object is valid by the schemas of Kubernetes or of the operator whose it is; unknown fields are refused."""
    for found in release(name):
        if operators.knows(found):
            operators.validate(found)
        else:
            kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("Cluster", ("postgresql", "synchronous", "dataDurability"), "always"),
        ("Certificate", ("renewBefore",), "30d"),
        ("ExternalSecret", ("secretStoreRefs",), {"name": "vault"}),
        ("HTTPRoute", ("rules", 0, "timeouts", "request"), "0"),
        ("ScaledObject", ("triggers", 0, "metadata", "threshold"), 60),
        ("ServiceMonitor", ("endpoints", 0, "interval"), "15"),
        ("PodMonitor", ("podMetricsEndpoints", 0, "ports"), "metrics"),
        ("PrometheusRule", ("groups", 0, "rules", 0, "labels", "severity"), 1),
    ],
)
def test_operators_refuse_what_is_wrong(kind: str, path: tuple[Any, ...], wrong: object) -> None:
    """A field that an operator has not, or that is of another kind, is found without the operator."""
    found = copy.deepcopy(of_kind("production", kind)[0])
    *way, last = path
    functools.reduce(lambda at, key: at[key], way, found["spec"])[last] = wrong
    with pytest.raises(jsonschema.ValidationError):
        operators.validate(found)


def test_a_key_that_stands_twice_is_found() -> None:
    """The reader of renders refuses what Kubernetes would."""
    with pytest.raises(DuplicateKey):
        yaml.load("a: {b: 1, b: 2}", Strict)


@each_profile
def test_all_are_known_as_one_release(name: str) -> None:
    """Every object, and every pod, has the labels that the kept renders leave out."""
    for found in release(name):
        assert COMMON.items() <= found["metadata"]["labels"].items()
        if found["kind"] in WORKLOADS:
            assert COMMON.items() <= found["spec"]["template"]["metadata"]["labels"].items()


@each_profile
def test_names_are_distinct(name: str) -> None:
    """No two objects are one."""
    names = [(found["kind"], found["metadata"]["name"]) for found in release(name)]
    assert len(set(names)) == len(names)


@each_profile
def test_pods_are_restricted(name: str) -> None:
    """Each pod keeps to the restricted standard, writes to its volumes alone, and has no token of the cluster."""
    for _, spec in pods(name):
        assert spec["automountServiceAccountToken"] is False
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {kind for volume in spec["volumes"] for kind in volume} <= {
            *("name", "emptyDir", "persistentVolumeClaim", "configMap", "secret"),
        }
        for each in spec["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert each["resources"]["requests"]
            assert each["resources"]["limits"]["memory"]


@each_profile
def test_mounts_have_volumes(name: str) -> None:
    """What a container mounts is there, by a volume or by a claim of its own; nothing is for nobody."""
    for workload in of_kind(name, *WORKLOADS):
        spec = workload["spec"]["template"]["spec"]
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        there = {volume["name"] for volume in spec["volumes"]} | claims
        assert {mount["name"] for each in spec["containers"] for mount in each["volumeMounts"]} == there


def _names(name: str, kind: str) -> list[str]:
    return [found["metadata"]["name"] for found in of_kind(name, kind)]


@each_profile
def test_selectors_find_pods(name: str) -> None:
    """Services, policies and budgets select pods that there are; a workload's selector fits its own pods alone."""
    labels = {
        found["metadata"]["name"]: found["spec"]["template"]["metadata"]["labels"]
        for found in of_kind(name, *WORKLOADS)
    }
    # The operator makes a cluster's pods.
    labels |= {cluster: {"cnpg.io/cluster": cluster} for cluster in _names(name, "Cluster")}

    def chosen(selector: dict[str, str]) -> set[str]:
        return {pod for pod, has in labels.items() if selector.items() <= has.items()}

    for found in of_kind(name, "Service"):
        assert chosen(found["spec"]["selector"])
    for found in of_kind(name, "PodDisruptionBudget"):
        assert chosen(found["spec"]["selector"]["matchLabels"])
    for found in of_kind(name, "NetworkPolicy"):
        assert chosen(found["spec"]["podSelector"]["matchLabels"])
    for found in of_kind(name, "Deployment", "StatefulSet"):
        assert chosen(found["spec"]["selector"]["matchLabels"]) == {found["metadata"]["name"]}


def test_migrations_come_before_the_rollout() -> None:
    """Where database and secrets are there already, both schemas are brought up to date first."""
    jobs = {found["metadata"]["name"]: found for found in of_kind("gpu", "Job")}
    assert set(jobs) == {"moa-check", "moa-migrate-auth", f"moa-migrate-{TASKS.name}"}
    for job in jobs.values():
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert job["spec"]["template"]["spec"]["containers"][0]["command"][-1] in ("migrate", "--check")
    for job in of_kind("trial", "Job"):
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"


def test_a_release_can_be_of_one_zone() -> None:
    """Where the default of all processes is a zone, every pod that serves is in it, pools and the edge too."""
    zone = {"topology.kubernetes.io/zone": "a"}
    values = {**profile("gpu"), "defaults": {"nodeSelector": zone}}
    found = [each for each in rendered(values) if each["kind"] in ("Deployment", "StatefulSet")]
    assert len(found) == len(PROCESSES) + 2
    for each in found:
        assert zone.items() <= each["spec"]["template"]["spec"]["nodeSelector"].items()


def test_edges_are_told_who_runs_in_which_zone() -> None:
    """With zones by name each process that edges ask, and they themselves, are found by a service for each zone, and
    edges are told no others. Each that goes by zones reads its own of its pod, and no pod runs outside the zones."""
    label = "topology.kubernetes.io/zone"
    found = rendered({**profile("trial"), "zones": {"names": ["a", "b"]}})
    services = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "Service"}
    pods = [each["spec"]["template"]["spec"] for each in found if each["kind"] in ("Deployment", "StatefulSet")]
    for each in pods:
        (term,) = each["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        assert term == {"matchExpressions": [{"key": label, "operator": "In", "values": ["a", "b"]}]}
    of_each = {
        (main := each["containers"][0])["name"]: {e["name"]: e.get("value", e.get("valueFrom")) for e in main["env"]}
        for each in pods
    }
    zoned = {name: told["MOA_ZONE"] for name, told in of_each.items() if "MOA_ZONE" in told}
    assert zoned.keys() == {"edge", "router", "desk", "inference"}
    for told in zoned.values():
        assert told == {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}}
    told = of_each[EDGE.name]
    asked = {name for name in EDGE.calls if name in told}
    assert len(asked) == 3
    for name in (*asked, "MOA_EDGE_ADDRESSES"):
        callee = EDGE.calls.get(name, EDGE.name)
        places = addresses(told[name])
        assert {each.zone for each in places} == {"a", "b"}
        for each in places:
            spec = services[each.host.partition(".")[0]]
            assert spec["clusterIP"] == "None"
            assert spec["selector"][label] == each.zone
            assert spec["selector"]["app.kubernetes.io/name"] == callee
            assert [port["port"] for port in spec["ports"]] == [each.port]
    for service in (each for each in found if each["kind"] == "Service"):
        kubernetes_validate.validate(service, kubernetes_validate.latest_version(), strict=True)


def test_credentials_can_change_under_running_pods() -> None:
    """A secret of credentials is a file of every process that shows or asks one, and the edge has none of it."""
    for name, spec in pods("gpu"):
        if name in {job["metadata"]["name"] for job in of_kind("gpu", "Job")}:
            continue
        mounted = [each for each in spec["volumes"] if each.get("secret", {}).get("secretName") == "moa-credentials"]
        told = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
        assert bool(mounted) == (name != f"moa-{EDGE.name}")
        assert told.get("MOA_SERVICE_TOKEN_FILE") == ("/moa/credentials/credentials" if mounted else None)


def test_a_trial_has_what_the_launcher_makes() -> None:
    """The secret that the chart makes has all that `make run` makes for itself, in a form that auth reads."""
    (secret,) = [found for found in rendered(profile("trial")) if found["kind"] == "Secret"]
    made = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert set(made) == {"MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER", keep.LOG_KEYS}
    assert ContentKeys(made[keep.LOG_KEYS])


def test_pools_have_models_of_their_own() -> None:
    """Each pool has its pods, its name and its variables, and routers know all of them."""
    pools_of_pods = {
        name: {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}.get("MOA_POOL")
        for name, spec in pods("gpu")
        if name.startswith("moa-inference")
    }
    assert pools_of_pods == {"moa-inference": None, "moa-inference-chat": "chat", "moa-inference-images": "images"}
    (router,) = [spec for name, spec in pods("gpu") if name == "moa-router"]
    known = {each["name"]: each.get("value") for each in router["containers"][0]["env"]}
    pools = dict(pair.split("=") for pair in known["MOA_INFERENCE_POOLS"].split(","))
    assert pools == {name: f"moa-inference-{name}.{NAMESPACE}.svc.cluster.local:8104" for name in ("chat", "images")}
    services = {found["metadata"]["name"] for found in of_kind("gpu", "Service")}
    assert {"moa-inference", "moa-inference-chat", "moa-inference-images"} <= services


def test_pools_begin_alike() -> None:
    """What a pool does not say is as of every pool, not of the processes without weights; maps are laid over it."""
    card = {"limits": {"nvidia.com/gpu": 1}}
    inference = {"defaults": {"cache": {"size": "5Gi"}}, "pools": {"images": {"resources": card, "replicas": 3}}}
    sets = {
        found["metadata"]["name"]: found["spec"]
        for found in rendered({**profile("trial"), "inference": inference})
        if found["kind"] == "StatefulSet" and "inference" in found["metadata"]["name"]
    }
    assert {name: spec["replicas"] for name, spec in sets.items()} == {"moa-inference": 1, "moa-inference-images": 3}
    for name, spec in sets.items():
        resources = spec["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == {"cpu": "1", "memory": "2Gi"}
        assert resources["limits"] == {"memory": "8Gi", **(card["limits"] if name.endswith("images") else {})}
        assert [each["spec"]["resources"]["requests"] for each in spec["volumeClaimTemplates"]] == [{"storage": "5Gi"}]


def test_without_jobs_before_a_release() -> None:
    """A controller that renders without the cluster needs none: processes do the same at their start."""
    without = {"migrations": {"enabled": False}, "check": {"enabled": False}}
    values = {**profile("production"), "catalogue": "providers: []\nmodels: []"}
    assert any(found["kind"] == "Job" for found in rendered(values))
    found = rendered({**values, **without})
    assert not [each for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})]


def test_the_example_catalogue_is_one(tmp_path: Path) -> None:
    """What the GPU profile gives as a catalogue is accepted, and its providers' pools are the profile's."""
    values = profile("gpu")
    file = tmp_path / "catalogue.yaml"
    file.write_text(values["catalogue"])
    pools = {provider.pool for provider in load(file, {}).providers.values() if provider.adapter == "inference"}
    assert pools - {""} == set(values["inference"]["pools"]) - {"default"}


def test_alerts_are_rules_of_prometheus() -> None:
    """The file is one that Prometheus reads as it is, and on Kubernetes each metric is of this release's pods."""
    plain, of_pods = (
        yaml.safe_load((chart.CHART / "files" / f"{name}.yaml").read_text()) for name in ("alerts", "alerts-kubernetes")
    )
    (made,) = [found["spec"] for found in of_kind("production", "PrometheusRule")]
    assert [group["name"] for group in made["groups"]] == ["moa", "moa-kubernetes"]
    some = f"moa-({'|'.join(sorted(process.name for process in PROCESSES))})-.+"
    of_release = f'{{namespace="{NAMESPACE}",pod=~"{some}",'
    for one, other in zip(plain["groups"][0]["rules"], made["groups"][0]["rules"], strict=True):
        assert one["annotations"] == other["annotations"]
        assert re.sub(r"((?:moa|envoy)_[a-z_]+)\{", lambda found: found[1] + of_release, one["expr"]) == other["expr"]
        assert other["expr"].count(of_release) == len(re.findall(r"\b(?:moa|envoy)_[a-z_]+\{", other["expr"]))
        assert not re.search(r"\bmoa_[a-z_]+\b(?!\{)", other["expr"])
    for one, other in zip(of_pods["groups"][0]["rules"], made["groups"][1]["rules"], strict=True):
        assert "$" not in other["expr"]
        assert other["expr"].count(f'namespace="{NAMESPACE}"') == one["expr"].count("{") >= 1
    for pod in ("moa-router-0", "moa-inference-images-1", "moa-auth-7c9f-x2"):
        assert re.fullmatch(some, pod)
    assert not re.fullmatch(some, "moa-b-router-0"), "a release beside it"


def test_what_is_watched_is_counted() -> None:
    """Alerts, dashboard and autoscaling name metrics that processes have."""
    texts = [
        path.read_text() for path in (chart.CHART / "files" / "alerts.yaml", chart.CHART / "files" / "dashboard.json")
    ]
    for panel in msgspec.json.decode(texts[1])["panels"]:
        for target in panel["targets"]:
            assert target["expr"].count('{namespace="$namespace",pod=~"$pod"') == target["expr"].count("{") >= 1
    texts.append((chart.CHART / "templates" / "keda.yaml").read_text())
    named = {name for text in texts for name in re.findall(r"\bmoa_[a-z_]+", text)}
    sources = [path for folder in ("services", "inference") for path in (chart.ROOT / folder).rglob("*.py")]
    kept = set(re.findall(r'"(moa_[a-z_]+)"', "\n".join(path.read_text() for path in sources)))
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert bare
    assert bare <= kept
    assert {panel["title"] for panel in msgspec.json.decode(texts[1])["panels"]}
