"""Two gateways of `make run`, over one database and one bucket: either answers any caller, and one is lost whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from deploy.local.ports import Ports
from tests import waiting
from tests.local.test_launcher import Launched

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BUCKET, LITTLE, TASKS = "pictures", 300, 8
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
CHAT = {"model": "moa-tiny-chat", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"input": {"prompt": "a blue square", "num_inference_steps": 2}}
PREDICTIONS = "/v1/models/local/moa-tiny-image/predictions"
PATIENCE_S = 120


class Hosts:
    """Where two hosts answer, and the key of an administrator."""

    def __init__(self, urls: list[str], launched: list[Launched]) -> None:
        self.urls, self.launched = urls, launched
        self.key = ""
        for each in launched:
            with suppress(FileNotFoundError):
                lines = (each.home / "dev.env").read_text().splitlines()
                self.key = next((line[12:] for line in lines if line.startswith("MOA_API_KEY=")), self.key)

    def ask(self, host: int, path: str, body: Any = None, *, key: str = "", **more: Any) -> requests.Response:
        """Ask a host: read, or send a body."""
        method = more.pop("method", "GET" if body is None else "POST")
        head = {"Authorization": f"Bearer {key or self.key}", **more.pop("headers", {})}
        return requests.request(method, self.urls[host] + path, json=body, headers=head, timeout=PATIENCE_S, **more)

    def lose(self, host: int) -> None:
        """Kill every process of a host at once."""
        launched = self.launched[host]
        for pid in [launched.process.pid, *launched.family()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launched.rest()


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """Yield the settings of a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    keys = {name.lower(): value for name, value in CREDENTIALS.items()}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket=BUCKET)
    try:
        yield {"MOA_STORE_BUCKET": BUCKET, "MOA_STORE_ENDPOINT": url, "MOA_STORE_REGION": "us-east-1", **CREDENTIALS}
    finally:
        server.stop()


@pytest.fixture
def hosts(database_url: str, tmp_path: Path) -> Iterator[Hosts]:
    """Two hosts that were started at once, over an empty database."""
    with ExitStack() as ending:
        shared = {
            **ending.enter_context(bucket()),
            "MOA_DATABASE_URL": database_url,
            "MOA_SERVICE_TOKEN": "a" * 64,
            "MOA_KEY_PEPPER": "b" * 64,
            "MOA_FETCH": "never",
            "MOA_ROUTERS": "1",
        }
        ports, launched = Ports(), []
        for name in ("one", "other"):
            port = ports.any()
            launched.append(Launched(tmp_path / name, **shared, MOA_PORT=str(port)))
            ending.callback(launched[-1].end)
        for each in launched:
            each.until_ready()
        yield Hosts([url_of(each) for each in launched], launched)


def url_of(launched: Launched) -> str:
    """Return the address in a greeting."""
    return launched.said.partition("Moa is ready at ")[2].split()[0]


def test_two_hosts_are_one_gateway(hosts: Hosts) -> None:
    """What one host makes the other shows and links to; a limit is one of both; a key that one revokes the other
    refuses; and when a host is lost amid tasks, the other does each of them once."""
    made = [hosts.ask(host, PREDICTIONS, IMAGE, headers={"Prefer": "wait=60"}).json() for host in (0, 1)]
    for host, one in ((1, made[0]), (0, made[1])):
        assert hosts.ask(host, f"/v1/predictions/{one['id']}").json()["status"] == "succeeded", one
        path = one["output"][0].partition("/files/")[2]
        assert requests.get(f"{hosts.urls[host]}/files/{path}", timeout=60).content.startswith(b"\x89PNG")
    few = hosts.ask(0, "/account/keys", {"name": "few", "limits": {"tokens_a_day": LITTLE}}).json()
    used = 0
    for number in range(2 * LITTLE):
        answer = hosts.ask(number % 2, "/v1/chat/completions", CHAT, key=few["api_key"])
        if not answer.ok:
            assert answer.status_code == 429, answer.text
            break
        used += answer.json()["usage"]["total_tokens"]
    assert 0 < used <= LITTLE
    gone = hosts.ask(0, "/account/keys", {"name": "gone"}).json()
    assert [hosts.ask(host, "/v1/chat/completions", CHAT, key=gone["api_key"]).status_code for host in (0, 1)] == [
        200
    ] * 2
    hosts.ask(0, f"/account/keys/{gone['key']['key_id']}", method="DELETE").raise_for_status()
    until(lambda: hosts.ask(1, "/v1/chat/completions", CHAT, key=gone["api_key"]).status_code == 401)
    painter = hosts.ask(1, "/account/keys", {"name": "painter"}).json()
    asked = {"headers": {"Prefer": "respond-async"}, "key": painter["api_key"]}
    tasks = [hosts.ask(number % 2, PREDICTIONS, IMAGE, **asked).json()["id"] for number in range(TASKS)]
    hosts.lose(0)
    until(lambda: {hosts.ask(1, f"/v1/predictions/{each}").json()["status"] for each in tasks} == {"succeeded"})
    until(lambda: images_of(hosts, painter["key"]["key_id"]) == TASKS)


def images_of(hosts: Hosts, key_id: str) -> int:
    """Return how many images a key was charged."""
    rows = hosts.ask(1, "/account/usage").json()["rows"]
    return sum(int(row["charged_images"]) for row in rows if row["key_id"] == key_id)


def until(true: Any) -> None:
    """Wait for a condition of other processes."""
    end, pauses = time.monotonic() + PATIENCE_S, waiting.pauses()
    while not true():
        assert time.monotonic() < end
        time.sleep(next(pauses))
