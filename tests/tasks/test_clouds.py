"""The documented models and samples through the whole gateway: its catalogue, the clouds emulated, outputs on S3."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer
from standardwebhooks import Webhook

from deploy.local.stack import Stack
from services.common.store import Links
from tests import stacks
from tests.emulators.clouds import Clouds
from tests.emulators.pictures import png
from tests.emulators.receiver import Receiver
from tests.tasks.system import until

SAMPLES = Path(__file__).parent / "samples"
BUCKET = "moa-outputs"
LINK_SECRET = "a link secret for the tests"
STORED = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@dataclass(frozen=True)
class Whole:
    """A gateway, the clouds behind it, its bucket."""

    stack: Stack
    clouds: Clouds
    s3: Any

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.stack.api_key}"}

    def sample(self, name: str, **swaps: str) -> str:
        """Return a sample as it is printed, but for host, key and what `swaps` names."""
        text = (SAMPLES / name).read_text()
        hosts = {"https://api.defapi.org": self.stack.url, "https://aihubmix.com": self.stack.url}
        keys = {"your-api-key-here": self.stack.api_key, "sk-***": self.stack.api_key}
        for printed, ours in {**hosts, **keys, **swaps}.items():
            text = text.replace(printed, ours)
        return text

    def ended(self, task_id: str) -> dict[str, Any]:
        """Query a task by the sample until it has ended."""

        def query() -> dict[str, Any] | None:
            said = shell(self.sample("task_query.sh", **{"ta823dfb-eaac-44fd-aec2-3e2c7ba8e071": task_id}))
            data: dict[str, Any] = json.loads(said)["data"]
            return data if data["status"] in ("success", "failed") else None

        found: dict[str, Any] = until(query, what="the task's end")
        return found

    def objects(self) -> list[str]:
        """List the bucket."""
        return [each["Key"] for each in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def shell(script: str) -> str:
    """Run a script; give what it printed."""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Whole]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys)
    s3.create_bucket(Bucket=BUCKET)
    with Clouds() as clouds:
        environment = {
            **clouds.environment,
            **STORED,
            "MOA_STORE_BUCKET": BUCKET,
            "MOA_STORE_ENDPOINT": f"http://{host}:{port}",
            "MOA_STORE_REGION": "us-east-1",
            "MOA_LINK_SECRET": LINK_SECRET,
            "MOA_LINK_TTL_S": "60",
            "MOA_EGRESS_ALLOW": f"127.0.0.1:{receiver.port}",
            "MOA_TASK_RETRY_S": "0.2",
            "MOA_DRAIN_S": "1",
        }
        names = ("auth", "image", "router", "tasks", "edge")
        root = tmp_path_factory.mktemp("whole")
        with stacks.gateway(root, environment=environment, processes=names) as stack:
            yield Whole(stack, clouds, s3)
    s3.close()
    server.stop()


# The task API (G).


@pytest.mark.parametrize("model", ["google/gempix2", "google/gemini-2.5-flash-image"])
def test_the_task_apis_samples_make_an_image_at_google(whole: Whole, model: str) -> None:
    """The document's two curl calls, for each model that it names: Google's image comes back, for half a credit."""
    said = json.loads(shell(whole.sample("task_create.sh", **{"google/gempix2": model})))
    assert (said["code"], said["message"]) == (0, "ok")
    data = whole.ended(said["data"]["task_id"])
    assert (data["status"], data["consumed"], data["status_reason"]) == ("success", "0.500000", {"message": None})
    [result] = data["result"]
    assert requests.get(result["image"], timeout=60).content == png()
    [content] = whole.clouds.gemini.seen[-1].body["contents"]
    assert content["parts"] == [{"text": "A beautiful landscape"}]
    assert whole.clouds.refused == []


def test_the_task_apis_javascript_gives_an_id(whole: Whole, tmp_path: Path) -> None:
    """The document's function returns the task's id, and throws what the gateway says about a bad key."""
    program = whole.sample("task_create.js") + "generateImage(process.argv[2], process.argv[3]).then(console.log);\n"
    (tmp_path / "sample.js").write_text(program)

    def run(key: str) -> subprocess.CompletedProcess[str]:
        command = ["node", str(tmp_path / "sample.js"), "A fox", key]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    good = run(whole.stack.api_key)
    assert whole.ended(good.stdout.strip())["status"] == "success"
    bad = run("dk-1234567890abcdef")
    assert bad.returncode != 0
    assert "API Error 401: Invalid API key" in bad.stderr


def test_references_reach_google_and_the_callback_comes_back(whole: Whole, receiver: Receiver) -> None:
    """The document's example with two references and a callback: both go up as images, the payload is as printed."""
    pictures = {"/API/docs/images/body-lotion.png": png(24, 24, "pink"), "/API/docs/images/soap.png": png(24, 24)}
    receiver.files.update(pictures)
    base = receiver.url.removesuffix("/hook")
    hosts = {"https://cdn.openai.com": base, "https://example.com/webhook/image-callback": receiver.url}
    body = json.loads(whole.sample("task_references.json", **hosts))
    made = requests.post(f"{whole.stack.url}/api/image/gen", json=body, headers=whole.auth, timeout=20).json()
    task_id = made["data"]["task_id"]
    until(lambda: receiver.of(task_id), what="the callback")
    headers, told = receiver.of(task_id)[0]
    image = told.pop("result")
    assert told == {
        "status": "success",
        "task_id": task_id,
        "consumed": "0.500000",
        "status_reason": {"message": None},
    }
    assert requests.get(image[0]["image"], timeout=60).content == png()
    [content] = whole.clouds.gemini.seen[-1].body["contents"]
    assert sum("inlineData" in part for part in content["parts"]) == 2
    secret = requests.get(f"{whole.stack.url}/account/webhook-secret", headers=whole.auth, timeout=60).json()["key"]
    [raw] = [data for sent, data in receiver.arrived if sent["webhook-id"] == headers["webhook-id"]]
    Webhook(secret).verify(raw, headers)


# The predictions API (P).

NAMES = [
    "opanai/gpt-image-1",
    "opanai/dall-e-3",
    "ideogram/V3",
    "stability/Stable-Diffusion-3-5-Large",
    *(
        owner + name
        for owner in ("", "google/")
        for name in (
            "imagen-4.0-generate-preview-05-20",
            "imagen-4.0-ultra-generate-exp-05-20",
            "imagen-3.0-generate-002",
        )
    ),
]


@pytest.mark.parametrize("path", NAMES)
def test_the_prediction_sample_runs_for_every_listed_path(whole: Whole, path: str) -> None:
    """The document's general curl, with each path that it lists: succeeded, one link, the provider's image behind."""
    found = json.loads(shell(whole.sample("prediction_any.sh", **{"<model_path>": path})))
    assert (found["status"], found["model"], found["error"]) == ("succeeded", path, None)
    [link] = found["output"]
    assert requests.get(link, timeout=60).content == png()
    assert whole.clouds.refused == []


def test_each_providers_prediction_sample_sends_what_it_says(whole: Whole) -> None:
    """The four curl calls with parameters: each parameter reaches the provider in the provider's own words."""
    clouds = whole.clouds

    def run(name: str) -> str:
        found = json.loads(shell(whole.sample(name)))
        assert found["status"] == "succeeded", found
        prompt: str = found["input"]["prompt"]
        return prompt

    prompt = run("prediction_gpt_image.sh")
    asked = clouds.openai.seen[-1].body
    assert (asked["prompt"], asked["size"], asked["quality"]) == (prompt, "1024x1024", "high")
    assert asked["moderation"] == "low"
    prompt = run("prediction_ideogram.sh")
    asked = clouds.ideogram.seen[-1].body
    assert (asked["prompt"], asked["rendering_speed"], asked["aspect_ratio"]) == (prompt, "QUALITY", "2x1")
    prompt = run("prediction_stability.sh")
    asked = clouds.stability.seen[-1].body
    assert (asked["prompt"], asked["model"]) == (prompt, "sd3.5-large")
    prompt = run("prediction_imagen.sh")
    assert prompt in json.dumps(clouds.gemini.seen[-1].body)
    assert clouds.refused == []


# The store.


def other_key(whole: Whole) -> str:
    """Sign somebody else up; give a key of theirs."""
    body = {"email": f"{uuid4().hex}@example.com", "password": "correct horse battery"}
    session = requests.post(f"{whole.stack.url}/account/signup", json=body, timeout=20).json()["session_token"]
    headers = {"authorization": f"Bearer {session}"}
    made = requests.post(f"{whole.stack.url}/account/keys", json={}, headers=headers, timeout=20)
    assert made.status_code == 200, made.text
    key: str = made.json()["api_key"]
    return key


def test_an_output_lies_on_s3_behind_links_that_end(whole: Whole) -> None:
    """A task's output is in the bucket under the account's name, with how it was made beside it and no prompt.

    Its link serves it; an expired one, one whose expiry or name was changed, and another object's signature are 403;
    another account's key reads neither file nor task; a later read of the task gives a link that works again.
    """
    before = set(whole.objects())
    created = json.loads(shell(whole.sample("task_create.sh")))["data"]["task_id"]
    link = whole.ended(created)["result"][0]["image"]
    [name] = set(whole.objects()) - before
    assert re.fullmatch(r"[A-Za-z0-9-]+_\d{8}_[0-9a-f]{32}\.png", name)
    assert link.startswith(f"{whole.stack.url}/files/{name}?")
    kept = whole.s3.get_object(Bucket=BUCKET, Key=name)
    assert kept["Body"].read() == png()
    assert kept["ContentType"] == "image/png"
    assert kept["Metadata"]["task"] == created
    assert "landscape" not in json.dumps(kept["Metadata"])

    def status(url: str, **headers: str) -> int:
        return requests.get(url, headers=headers, timeout=60).status_code

    assert status(link) == 200
    expired = Links(whole.stack.url, LINK_SECRET, ttl_s=60).make(name, now_s=time.time() - 61)
    assert requests.get(expired, timeout=60).json()["detail"] == "this link has expired"
    later = re.sub(r"expires=(\d+)", lambda found: f"expires={int(found[1]) + 3600}", link)
    another = next(each for each in before if each.endswith(".png"))
    assert [status(url) for url in (expired, later, link[:-2], link.replace(name, another))] == [403] * 4
    bare = link.partition("?")[0]
    assert status(bare) == 403
    assert status(bare, **whole.auth) == 200
    stranger = {"authorization": f"Bearer {other_key(whole)}"}
    assert status(bare, **stranger) == 404
    assert status(f"{whole.stack.url}/api/task/query?task_id={created}", **stranger) == 404
    again = whole.ended(created)["result"][0]["image"]
    assert requests.get(again, timeout=60).content == png()
