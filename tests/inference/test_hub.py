"""Models from a hub: pinned, watched, resumed, reused without it, and refused where they would run foreign code."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference import hub as choosing
from inference import machine, sources
from inference.needs import needed_bytes
from inference.text.llama.model import load as load_llama
from moa.image.v1 import image_pb2
from services.catalogue import Load, Model
from services.common.errors import ModelMisconfigured, Unavailable
from tests.inference.gguf_file import written
from tests.inference.harness import Client, Running
from tests.inference.hub import Hub, Repository, files_of

CHAT = Path("inference/models/moa-tiny-chat")
IMAGE = Path("inference/models/moa-tiny-image")
OWN_CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path({marker!r}).write_text("ran")

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Let the process's hub be one of its own, and its cache empty."""
    machine.bring_up(1)
    import huggingface_hub.constants
    import transformers.dynamic_module_utils

    with Hub() as one:
        template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(
            huggingface_hub.constants.ENDPOINT
        )
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.url + template)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", one.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        yield one


def chat() -> dict[str, bytes]:
    """Return the shipped text model's files, with a pickle beside them."""
    return files_of(CHAT) | {"pytorch_model.bin": b"\x80\x04 a pickle"}


def fetched(source: str, revision: str = "") -> tuple[sources.Source, list[tuple[str, float]]]:
    """Fetch; give what came and what was reported."""
    told: list[tuple[str, float]] = []
    load = Load(source=source, revision=revision)
    return sources.fetch(load, lambda stage, fraction: told.append((stage, fraction))), told


def test_a_pinned_revision_comes_whole_and_watched(hub: Hub) -> None:
    """An older commit is fetched though there is a newer one, byte for byte, with its bytes counted on the way; pickles
    are not asked for."""
    repository = hub.repositories["acme/chat"] = Repository()
    pinned = repository.commit(chat())
    newest = repository.commit(chat() | {"README.md": b"newer"})
    source, told = fetched("acme/chat", pinned)
    assert source.revision == pinned
    there = {name: data for name, data in files_of(CHAT).items() if not name.endswith(".bin")}
    assert files_of(Path(source.folder)) == there
    assert not [path for path in hub.fetched() if path.endswith(".bin")]
    parts = [fraction for stage, fraction in told if stage.startswith("download, ")]
    assert len(parts) > 1
    assert parts == sorted(parts)
    assert parts[-1] == sources.DOWNLOADED
    assert fetched("acme/chat")[0].revision == newest


def test_one_gguf_file_of_a_repository_is_fetched(hub: Hub, tmp_path: Path) -> None:
    """Of a repository of GGUF files the named one comes, with its parts, pinned, and serves without the hub; it is run
    by llama.cpp, its progress is told, and its need is known once it is here."""
    whole = written(tmp_path / "written.gguf").read_bytes()
    split = {f"big/q8-0000{part}-of-00002.gguf": b"part" for part in (1, 2)}
    repository = Repository()
    pinned = repository.commit({"q4.gguf": whole, "q8.gguf": b"other", **split, "README.md": b"x"})
    repository.commit({"q4.gguf": b"newer"})
    hub.repositories["someone/model-GGUF"] = repository
    model = Model(id="m", provider="p", load=Load(source="someone/model-GGUF", file="q4.gguf", revision=pinned))
    assert needed_bytes(model) == 0
    told: list[tuple[str, float]] = []
    loaded = load_llama(model, lambda stage, part: told.append((stage, part)), 1)
    assert loaded.revision == pinned
    assert loaded.tokens("Hello")
    assert any(stage == f"download, {len(whole) / 1e6:.1f} of {len(whole) / 1e6:.1f} MB" for stage, _ in told)
    assert {path.rpartition("/")[2] for path in hub.fetched()} == {"q4.gguf"}
    assert needed_bytes(model) > len(whole)
    first = Load(source="someone/model-GGUF", file="big/q8-00001-of-00002.gguf", revision=pinned)
    source = sources.fetch(first, lambda stage, part: None)
    assert (source.gguf, source.size_bytes) == ("q8-00001-of-00002.gguf", 8)
    absent = Load(source="someone/model-GGUF", file="nothing.gguf", revision=pinned)
    with pytest.raises(ModelMisconfigured, match="does not have the file"):
        sources.fetch(absent, lambda stage, part: None)
    with pytest.raises(ModelMisconfigured, match="`file` names a GGUF"):
        fetched("someone/model-GGUF", pinned)
    hub.stop()
    assert load_llama(model, lambda stage, part: None, 1).revision == pinned


def test_the_environment_names_the_hub(hub: Hub, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_HOME, as operators set them, are where a process fetches from and to."""
    commit = hub.repositories.setdefault("acme/chat", Repository()).commit(chat())
    program = (
        "from inference import sources; from services.catalogue import Load\n"
        "print(sources.fetch(Load(source='acme/chat'), lambda stage, part: None).folder)"
    )
    environment = {**os.environ, "PYTHONPATH": f"gen{os.pathsep}.", "HF_ENDPOINT": hub.url}
    environment["HF_HOME"] = str(tmp_path / "home")
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    folder = Path(ran.stdout.strip())
    assert folder.name == commit
    assert folder.is_relative_to(tmp_path / "home")


def test_without_the_hub_the_cache_serves(hub: Hub) -> None:
    """What was fetched once serves when the hub is gone; what was not is unavailable, in words."""
    hub.repositories["acme/chat"] = Repository()
    hub.repositories["acme/chat"].commit(chat())
    first, _ = fetched("acme/chat")
    asked = len(hub.asked)
    assert fetched("acme/chat", first.revision)[0] == first
    assert not [path for _, path, _ in hub.asked[asked:] if "resolve" in path], "nothing is fetched again"
    hub.stop()
    assert fetched("acme/chat")[0] == first
    with pytest.raises(Unavailable, match="could not be reached"):
        fetched("acme/other")


def test_a_download_that_broke_off_goes_on(hub: Hub) -> None:
    """A connection that breaks midway is taken up again from what had come; the file is whole."""
    hub.repositories["acme/image"] = Repository()
    hub.repositories["acme/image"].commit(files_of(IMAGE))
    hub.cut, hub.cuts = 12_000_000, 1
    source, _ = fetched("acme/image")
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (Path(source.folder) / name).read_bytes() == files_of(IMAGE)[name]
    assert [part for _, _, part in hub.asked if part], "only the rest was asked for"


def test_a_hub_that_always_breaks_off_is_told_and_forgotten(hub: Hub) -> None:
    """A file that never comes whole makes the model unavailable, in words; once the hub is well, it comes whole."""
    hub.repositories["acme/chat"] = Repository()
    hub.repositories["acme/chat"].commit(chat())
    hub.cut, hub.cuts = 1_000_000, -1
    with pytest.raises(Unavailable, match="broke off"):
        fetched("acme/chat")
    hub.cuts = 0
    source, _ = fetched("acme/chat")
    assert (Path(source.folder) / "model.safetensors").read_bytes() == chat()["model.safetensors"]


def test_what_the_hub_refuses_is_told_apart(hub: Hub) -> None:
    """No such model, no such revision, no access, nothing but pickles: each is said, and none names the source."""
    hub.repositories["acme/chat"] = Repository()
    hub.repositories["acme/chat"].commit(chat())
    hub.repositories["acme/gated"] = Repository(gated=True)
    hub.repositories["acme/pickled"] = Repository()
    hub.repositories["acme/pickled"].commit(
        {name: data for name, data in chat().items() if not name.endswith(".safetensors")}
    )
    refused = [
        ("acme/nobody", "", "does not have it"),
        ("acme/chat", "0" * 40, "revision"),
        ("acme/gated", "", "lets in"),
        ("acme/pickled", "", "pickles are not loaded"),
    ]
    for source, revision, told in refused:
        with pytest.raises(ModelMisconfigured, match=told) as caught:
            fetched(source, revision)
        assert "acme" not in caught.value.message
    assert not [path for path in hub.fetched() if path.endswith(".bin")]


def own_code(marker: Path) -> dict[str, bytes]:
    """Return the text model's files as a kind of its own, whose code says that it ran."""
    files = files_of(CHAT)
    config = json.loads(files["config.json"])
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": names}
    code = OWN_CODE.format(marker=str(marker)).encode()
    return files | {"config.json": json.dumps(config).encode(), "own.py": code}


def served(folder: Path, models: dict[str, tuple[str, dict[str, Any]]], **settings: Any) -> Running:
    """Serve models: id -> (what it makes, how it is loaded)."""
    providers = [{"id": f"local-{makes}", "adapter": "inference", "makes": makes} for makes in ("text", "image")]
    entries = [
        {
            "id": name,
            "provider": f"local-{makes}",
            "context_tokens": 512,
            "capabilities": ["lora"] if makes == "image" else [],
            "load": load,
        }
        for name, (makes, load) in models.items()
    ]
    file = folder / "catalogue.yaml"
    file.write_text(json.dumps({"providers": providers, "models": entries}))
    return Running(file, **settings)


async def test_a_repositorys_code_runs_only_if_it_is_named(hub: Hub, tmp_path: Path) -> None:
    """A model of a kind of its own is refused and none of its code runs, until its repository is named as trusted."""
    marker = tmp_path / "marker"
    hub.repositories["acme/own"] = Repository()
    hub.repositories["acme/own"].commit(own_code(marker))
    for trusted in ("acme/other", "acme/own"):
        running = served(tmp_path, {"own": ("text", {"source": "acme/own"})}, remote_code=trusted)
        client = Client(running.address)
        try:
            if trusted == "acme/own":
                assert (await client.text("Hello", model="own", max_tokens=4)).text
                assert type(running.engine("own").model.network).__name__ == "OwnForCausalLM"
                assert marker.exists()
            else:
                with pytest.raises(ModelMisconfigured, match="own code"):
                    await client.text("Hello", model="own")
                assert not marker.exists()
        finally:
            await client.close()
            await asyncio.to_thread(running.stop)


async def test_a_caller_sees_the_download(hub: Hub, tmp_path: Path) -> None:
    """A call for a model that is on the hub shows how much has come, then the image, whose receipt has the commit."""
    hub.repositories["acme/image"] = Repository()
    commit = hub.repositories["acme/image"].commit(files_of(IMAGE))
    running = served(tmp_path, {"picture": ("image", {"source": "acme/image", "revision": commit})})
    client = Client(running.address)
    try:
        out = await client.image(model="picture", prompt="a red circle", width=64, height=64, seed=1)
    finally:
        await client.close()
        await asyncio.to_thread(running.stop)
    loading = [event.loading for event in out.events if event.HasField("loading")]
    assert len([one for one in loading if one.stage.startswith("download, ")]) > 2
    assert [one.fraction for one in loading] == sorted(one.fraction for one in loading)
    assert out.images[0].receipt.revision == commit


SDXL = {
    "model_index.json": {
        "_class_name": "StableDiffusionXLPipeline",
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "image_encoder": [None, None],
    },
    "files": [
        "model_index.json sd_xl_base_1.0.safetensors sd_xl_base_1.0_0.9vae.safetensors",
        "sd_xl_offset_example-lora_1.0.safetensors scheduler/scheduler_config.json",
        "text_encoder/model.fp16.safetensors text_encoder/model.safetensors text_encoder/openvino_model.bin",
        "text_encoder_2/model.fp16.safetensors text_encoder_2/model.safetensors unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors vae_1_0/diffusion_pytorch_model.safetensors",
    ],
}
"""How the SDXL base repository is laid out."""


def weights_read(files: list[str], parts: dict[str, Any] | None, wanted: str = "") -> set[str]:
    there = [name for line in files for name in line.split()]
    return {f for f in there if f.endswith(".safetensors")} - set(choosing.unread(there, parts, wanted))


def test_of_a_pipeline_the_parts_alone_are_read() -> None:
    """Of SDXL's repository each part comes once: no weights in one file, no second precision, no other VAE."""
    index: Any = SDXL["model_index.json"]
    files: Any = SDXL["files"]
    assert weights_read(files, index) == {
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert weights_read(files, index, "fp16") == {
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


@pytest.mark.parametrize(
    ("files", "wanted", "read"),
    [
        ("model-00001-of-00002.safetensors model-00002-of-00002.safetensors consolidated.safetensors", "", 2),
        ("model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.fp16.safetensors", "fp16", 1),
        ("model.fp16-00001-of-00002.safetensors model.fp16-00002-of-00002.safetensors model.safetensors", "", 1),
        ("model.fp16-00001-of-00002.safetensors model.fp16-00002-of-00002.safetensors model.safetensors", "fp16", 2),
        ("model.fp16.safetensors", "", 1),
        ("weights.safetensors", "", 1),
        ("model.fp16.safetensors model.bf16.safetensors", "", 2),
    ],
)
def test_a_variant_is_read_whole_and_alone(files: str, wanted: str, read: int) -> None:
    """The wanted variant, else the plain weights, else the only variant; where it is not clear, nothing is left out."""
    assert len(weights_read([files], None, wanted)) == read


def narrowed(files: dict[str, bytes], part: str) -> dict[str, bytes]:
    """Put a second precision of a part's weights beside the first, under the name that it has on hubs."""
    from safetensors.torch import load, save

    plain = next(name for name in files if name.startswith(f"{part}/") and name.endswith(".safetensors"))
    halved = {name: tensor.half() * 0.5 for name, tensor in load(files[plain]).items()}
    return files | {plain.replace(".safetensors", ".fp16.safetensors"): save(halved)}


async def test_a_variant_and_adapters_come_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    """A model in another precision and LoRAs by hub id, a pinned one too, are fetched and used; nothing else comes."""
    hub.repositories["acme/image"] = Repository()
    hub.repositories["acme/image"].commit(
        narrowed(files_of(IMAGE), "unet") | {"whole.safetensors": b"never", "other/model.safetensors": b"never"}
    )
    lora = files_of(Path("inference/models/moa-tiny-image-loras/moa"))["pytorch_lora_weights.safetensors"]
    hub.repositories["acme/lora"] = Repository()
    pinned = hub.repositories["acme/lora"].commit({"bird.safetensors": lora, "other.safetensors": b"never"})
    hub.repositories["acme/lora"].commit({"README.md": b"moved away"})
    loras = {"bird": f"acme/lora/bird.safetensors@{pinned}"}
    models: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("image", {"source": "acme/image", "options": {"loras": loras}}),
        "half": ("image", {"source": "acme/image", "options": {"variant": "fp16"}}),
    }
    running = served(tmp_path, models)
    client = Client(running.address)
    usual: dict[str, Any] = {"prompt": "a moa", "width": 64, "height": 64, "seed": 1}
    try:
        plain = await client.image(model="plain", **usual)
        assert not [path for path in hub.fetched() if "fp16" in path]
        bird = await client.image(
            model="plain",
            diffusion=image_pb2.Diffusion(steps=4, loras=[image_pb2.Lora(name="bird")]),
            **{name: value for name, value in usual.items() if name != "seed"},
        )
        half = await client.image(model="half", **usual)
    finally:
        await client.close()
        await asyncio.to_thread(running.stop)
    assert len({out.images[0].image.data for out in (plain, bird, half)}) == 3
    assert not [path for path in hub.fetched() if "never" in path or "whole" in path or "other" in path]
