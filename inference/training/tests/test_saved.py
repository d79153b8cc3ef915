from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.training import denoiser, language_model, lora
from inference.training.denoiser import Effort
from inference.training.loop import Run
from inference.training.scores import load_pipeline
from inference.training.tests.conftest import SHIPPED

TINY = Effort(steps=1, batch=4, latents=8, autoencoder_steps=1, decoder_steps=1, crops=16, captions=150)


def test_an_image_model_from_nothing_loads_with_diffusers(run: Run) -> None:
    """One command's folder is a StableDiffusionPipeline in float16 safetensors and draws."""
    folder = denoiser.train(run, None, TINY)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red circle", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (128, 128, 3)
    assert _dtypes(folder) == {"F16"}


def test_training_further_keeps_the_latents(run: Run) -> None:
    """Started from a model, training leaves its encoder alone bit for bit and changes the rest."""
    start = SHIPPED / "moa-tiny-image"
    folder = denoiser.train(run, start, TINY)
    before, after = (
        AutoencoderTiny.from_pretrained(f, subfolder="vae", local_files_only=True) for f in (start, folder)
    )
    encoder = after.encoder.state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in before.encoder.state_dict().items())
    one, two = (load_pipeline(f, run.device).unet.state_dict() for f in (start, folder))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_a_text_model_from_nothing_loads_with_transformers(run: Run) -> None:
    """One command's folder is a causal language model with tokenizer and chat template, and generates."""
    folder = language_model.train(run, steps=1)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    chat = [{"role": "user", "content": "안녕"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = network.generate(**prompt, max_new_tokens=3)
    assert made.shape[1] > prompt["input_ids"].shape[1]
    assert _dtypes(folder) == {"F16"}


def test_loras_merge_add_up_and_come_out_again(run: Run) -> None:
    """A trained LoRA changes the picture, two change it together, and taken out they leave what was there."""
    model = SHIPPED / "moa-tiny-image"
    folders = [lora.train(kind, model, run, steps=2, count=8, batch=4) for kind in lora.STEPS]
    pipeline = load_pipeline(model, run.device)
    pipeline.set_progress_bar_config(disable=True)

    def paint() -> np.ndarray:
        seed = torch.Generator().manual_seed(1)
        made: np.ndarray = pipeline("a tree", num_inference_steps=2, generator=seed, output_type="np").images[0]
        return made

    before = paint()
    lora.merge(pipeline, folders[0])
    one = paint()
    lora.merge(pipeline, folders[1])
    two = paint()
    for folder in folders:
        lora.merge(pipeline, folder, -1.0)
    assert np.abs(one - before).max() > 1e-3
    assert np.abs(two - one).max() > 1e-3
    assert np.abs(paint() - before).max() < 1e-4


def _dtypes(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            found |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return found
