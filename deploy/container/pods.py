"""`make pods`: run the pods of the Helm chart's trial profile as containers, as Kubernetes would, and ask them.

What a pod's specification says is what its container has: the user, a root that is read only, no capabilities, its
variables, its volumes, and its service's name. The images are those of `make containers`. Where no engine or no base
image can be had, it ends with 77. What it started it ends.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from deploy.build.breaking import NOT_RUN
from deploy.build.chart import CHART
from deploy.container.images import DATABASE_IMAGE
from deploy.container.trial import Broken, Engine, NotHere, answers, build, call, engine, fetch_bases, tell, works
from deploy.local.ports import Ports

NETWORK: Final = "moa-pods"
RELEASE, NAMESPACE = "moa", "ai"
PROFILE: Final = CHART.parent / "profiles" / "trial.yaml"

_START_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Release:
    """What Helm makes of a profile, and what stands for the operators of a cluster."""

    objects: Sequence[Mapping[str, Any]]
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By their names, decoded."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Volumes in place of unnamed ones, by container and path with a colon between."""
    words_of: Callable[[str], Sequence[str]] = lambda _: ()
    """More words of an engine's `run`, by the container's name."""

    def of_kind(self, *kinds: str) -> list[Mapping[str, Any]]:
        """Return the objects of some kinds."""
        return [found for found in self.objects if found["kind"] in kinds]

    def names_of(self, labels: Mapping[str, str]) -> list[str]:
        """Return the whole names of the services that choose pods with these labels."""
        chosen = [s for s in self.of_kind("Service") if s["spec"]["selector"].items() <= labels.items()]
        return [f"{found['metadata']['name']}.{NAMESPACE}.svc.cluster.local" for found in chosen]


def release(values: Mapping[str, Any], database_url: str) -> Release:
    """Return the release with an operator's values over the trial profile's, as Helm renders it."""
    import helm_python  # of the tests' packages: 75 MB that nothing else here needs
    import yaml

    with helm_python.Chart.load(str(CHART)) as chart:
        merged = chart.merge_values(_over(msgspec.yaml.decode(PROFILE.read_bytes()), values))
        files = chart.render(merged, name=RELEASE, namespace=NAMESPACE)
    objects = [
        found
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for found in yaml.safe_load_all(text)
        if found
    ]
    known = {
        found["metadata"]["name"]: {name: base64.b64decode(value).decode() for name, value in found["data"].items()}
        for found in objects
        if found["kind"] == "Secret"
    }
    return Release(objects=objects, secrets={**known, f"{RELEASE}-db-app": {"uri": database_url}})


def _over(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with more over them, as Helm puts several files together."""
    result = dict(values)
    for name, value in more.items():
        inner = result.get(name)
        result[name] = _over(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def line_of(release: Release, workload: Mapping[str, Any], name: str, more: Sequence[str] = ()) -> list[str]:
    """Return the words of an engine's `run` that make a workload's pod a container of that name."""
    template = workload["spec"]["template"]
    spec = template["spec"]
    (container,) = spec["containers"]
    security = {**spec["securityContext"], **container["securityContext"]}
    words = ["-d", "--name", name, "--network", NETWORK, *more]
    for alias in release.names_of(template["metadata"]["labels"]):
        words += ["--network-alias", alias]
    words += ["--user", f"{security['runAsUser']}:{security['runAsGroup']}", "--security-opt", "no-new-privileges"]
    words += ["--cap-drop", *security["capabilities"]["drop"]]
    if security["readOnlyRootFilesystem"]:
        words += ["--read-only", "--read-only-tmpfs=false"]
    for each in container["env"]:
        value = each.get("value")
        if value is None:
            wanted = each["valueFrom"]["secretKeyRef"]
            value = release.secrets.get(wanted["name"], {}).get(wanted["key"])
            if value is None:
                if wanted.get("optional"):
                    continue
                raise Broken(f"{name}: no key {wanted['key']} in the secret {wanted['name']}")
        words += ["--env", f"{each['name']}={value}"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        if claim := volume.get("persistentVolumeClaim"):
            words += ["--volume", f"{claim['claimName']}:{mount['mountPath']}:U"]
        elif mount["mountPath"] == "/tmp":  # noqa: S108  # the container's
            words += ["--tmpfs", "/tmp:rw,mode=1777"]  # noqa: S108
        else:
            # An engine has a tmpfs owned as the folder under it is; a volume without a name goes with its container.
            named = release.volumes.get(f"{name}:{mount['mountPath']}")
            words += ["--volume", f"{named}:{mount['mountPath']}:U" if named else mount["mountPath"]]
    return [*words, *release.words_of(name), container["image"], *container["command"]]


@contextlib.contextmanager
def network(tools: Engine) -> Iterator[None]:
    """Have a network of that name with no container of an earlier trial; on leaving delete it and what is on it."""

    def clean() -> None:
        for name in _names(tools):
            works(*tools.run, "rm", "-f", "-v", "-t", "2", name, limit_s=60.0)
        works(*tools.run, "volume", "rm", "-f", f"{RELEASE}-objects")
        works(*tools.run, "network", "rm", "-f", NETWORK)

    clean()
    call(*tools.run, "network", "create", NETWORK)
    try:
        yield
    finally:
        clean()
        tell("stopped")


def _names(tools: Engine) -> list[str]:
    return call(*tools.run, "ps", "-a", "--format", "{{.Names}}", "--filter", f"network={NETWORK}").split()


def database(tools: Engine, password: str) -> str:
    """Start PostgreSQL, which on a cluster its operator does; return its address once it answers."""
    name = f"{RELEASE}-db"
    account = ("POSTGRES_USER=moa", "POSTGRES_DB=moa", f"POSTGRES_PASSWORD={password}")
    variables = [word for pair in account for word in ("--env", pair)]
    call(*tools.run, "run", "-d", "--name", name, "--network", NETWORK, *variables, DATABASE_IMAGE)
    asks = ("pg_isready", "--host", "127.0.0.1", "--username", "moa")
    until(lambda: works(*tools.run, "exec", name, *asks), f"{name} never answers")
    return f"postgresql://moa:{password}@{name}/moa"


def until(done: Callable[[], bool], otherwise: str) -> None:
    """Return when something is so; raise Broken where that takes too long."""
    ends = time.monotonic() + _START_S
    while not done():
        if time.monotonic() > ends:
            raise Broken(otherwise)
        time.sleep(0.5)


def migrated(tools: Engine, found: Release) -> None:
    """Run the jobs that come before a rollout, in their order."""
    jobs = found.of_kind("Job")
    for job in sorted(jobs, key=lambda job: int(job["metadata"]["annotations"]["helm.sh/hook-weight"])):
        name = job["metadata"]["name"]
        call(*tools.run, "run", *line_of(found, job, name))
        if call(*tools.run, "wait", name, limit_s=_START_S).strip() != "0":
            raise Broken(f"{name}: {_last_words(tools, name)}")
        tell(f"{name}: done")


def _last_words(tools: Engine, name: str) -> str:
    line = (*tools.run, "logs", "--tail", "15", name)
    return subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60
    ).stdout


def begun(tools: Engine, found: Release, ports: Sequence[int]) -> None:
    """Start the pods of every workload, as many of each as there are ports; the edges are published on those."""
    for workload in found.of_kind("Deployment", "StatefulSet"):
        name = workload["metadata"]["name"]
        for number, port in enumerate(ports):
            publish = ("-p", f"127.0.0.1:{port}:8080") if name.endswith("-edge") else ()
            call(*tools.run, "run", *line_of(found, workload, f"{name}-{number}", publish))


def serving(tools: Engine, found: Release, *, replicas: int = 1) -> None:
    """Return when every pod's readiness probe succeeds; raise Broken with the last words of one that does not."""
    for workload in found.of_kind("Deployment", "StatefulSet"):
        probe = workload["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
        ports = workload["spec"]["template"]["spec"]["containers"][0]["ports"]
        asked = f"127.0.0.1:{probe['grpc']['port']}" if "grpc" in probe else ""
        if not asked:
            (port,) = [each["containerPort"] for each in ports if each["name"] == probe["httpGet"]["port"]]
            asked = f"http://127.0.0.1:{port}{probe['httpGet']['path']}"
        for number in range(replicas):
            name = f"{workload['metadata']['name']}-{number}"
            line = (*tools.run, "exec", name, "python", "-m", "services.common.probe", asked)
            try:
                until(functools.partial(works, *line), f"{name} never serves at {asked}")
            except Broken as error:
                raise Broken(f"{error}: {_last_words(tools, name)}") from None
        tell(f"{workload['metadata']['name']} serves")


def first_key(tools: Engine) -> str:
    """Return the first key, made as the chart's notes say."""
    line = (*tools.run, "exec", f"{RELEASE}-auth-0", "python", "-m", "services.auth", "bootstrap", "--json")
    made = msgspec.json.decode(call(*line).strip().splitlines()[-1])
    return str(made["api_key"])


def trial() -> None:
    """Do all of it. Raises NotHere or Broken."""
    tools = engine()
    fetch_bases(tools)
    build(tools)
    port = Ports().any()
    values = {
        "image": {"repository": "docker.io/library/moa", "tag": "latest"},
        "inferenceImage": {"repository": "docker.io/library/moa-inference", "tag": "latest"},
        "settings": {"MOA_PUBLIC_URL": f"http://127.0.0.1:{port}"},
    }
    with network(tools):
        found = release(values, database(tools, secrets.token_hex(16)))
        migrated(tools, found)
        begun(tools, found, [port])
        serving(tools, found)
        answers(f"http://127.0.0.1:{port}", first_key(tools))


def main() -> int:
    """Return 0 when everything was answered, 77 where it cannot be tried here."""
    try:
        trial()
    except NotHere as error:
        print(f"pods: {error}")
        return NOT_RUN
    except Broken as error:
        print(f"pods: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
