"""Train the denoiser and its text encoder together, on latents of pictures drawn for it."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from inference.training import autoencoder, captions
from inference.training.loop import Recipe, Run, dice, fit, rng
from inference.training.pictures import draw

_SHARD: Final = 4096
_WIDTH: Final = 128  # of the text encoder
_UNPROMPTED: Final = 0.1  # share of samples whose caption is dropped, for guidance
_TIMES: Final = 1000
_AUTOENCODER_SHARE: Final = 0.125  # of the budget, for the autoencoder and again for its decoder alone


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work goes into each part of the image model."""

    steps: int = 12000
    """Of the denoiser."""
    batch: int = 64
    """Samples of a denoiser's step."""
    latents: int = 204800
    """Pictures drawn for the denoiser."""
    autoencoder_steps: int = 8000
    decoder_steps: int = 8000
    crops: int = 6000
    """Pictures that the autoencoder's crops are cut from."""
    captions: int = 20000
    """Captions that the tokenizer is learned from."""

    def part(self, share: float) -> Effort:
        """Give a share of this, in batches as large."""
        amounts = {name: max(1, round(amount * share)) for name, amount in asdict(self).items()}
        return replace(self, **{**amounts, "batch": self.batch})


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Give a three-layer text encoder with random weights: 0.74 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=captions.LENGTH,
            projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """Give the denoiser with random weights: 8.7 M parameters, attention at 8×8 and below only, for speed."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def make_scheduler() -> DDIMScheduler:
    """Give the noise schedule: v-prediction with zero terminal signal, trailing steps (arXiv:2305.08891)."""
    return DDIMScheduler(
        num_train_timesteps=_TIMES,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def make_pipeline(seed: int, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """Give the whole pipeline with random weights."""
    torch.manual_seed(seed)
    return StableDiffusionPipeline(
        vae=autoencoder.make_autoencoder(),
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def make_latents(vae: AutoencoderTiny, tokenizer: CLIPTokenizer, run: Run, count: int) -> tuple[Tensor, Tensor]:
    """Draw pictures and give their scaled latents, (count, 4, 16, 16) in float16, and their captions' tokens.

    Shards are kept in the run's folder, so that a resumed run does not draw them again.
    """
    folder = run.out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    latents, tokens = [], []
    for shard in range(-(-count // _SHARD)):
        amount = min(_SHARD, count - shard * _SHARD)
        path = folder / f"{run.seed}-{shard:04d}-{amount}.pt"
        if not path.exists():
            dealt = dice(run.seed + 2, shard)
            drawn = [draw(dealt) for _ in range(amount)]
            parts = []
            for at in range(0, len(drawn), 64):
                with run.autocast():
                    made = vae.encoder(autoencoder.pixels([d.image for d in drawn[at : at + 64]]).to(run.device))
                parts.append((made.float() * vae.config.scaling_factor).half().cpu())
            partial = path.with_suffix(".partial")  # a run killed while it writes leaves no half of a shard behind
            words = captions.tokens(tokenizer, [d.caption for d in drawn])
            torch.save({"z": torch.cat(parts), "tokens": words}, partial)
            partial.replace(path)
            if not run.quiet:
                print(f"latents: {shard * _SHARD + amount} of {count}", file=sys.stderr, flush=True)
        kept = torch.load(path, weights_only=True)
        latents.append(kept["z"])
        tokens.append(kept["tokens"])
    return torch.cat(latents), torch.cat(tokens)


class Objective:
    """The denoiser's loss: predict the velocity of a latent between clean and noise.

    Args:
        pipeline: Its unet and text encoder are trained, its scheduler gives the noise levels.
        latents: Scaled, (count, 4, 16, 16).
        tokens: (count, 32).
        batch: Samples of a step.
    """

    def __init__(
        self, pipeline: StableDiffusionPipeline, latents: Tensor, tokens: Tensor, run: Run, batch: int = 64
    ) -> None:
        self._pipeline = pipeline
        self._latents, self._tokens, self._run, self._batch = latents, tokens, run, batch
        self._signal = pipeline.scheduler.alphas_cumprod.to(run.device)
        self._empty = captions.tokens(pipeline.tokenizer, [""])[0]

    def __call__(self, step: int) -> Tensor:
        """Give a step's loss. Noise levels of a batch are spread evenly, which steadies it."""
        generator = rng(self._run.seed + 3, step)
        chosen = self._chosen(step)
        tokens = self._tokens[chosen].clone()
        tokens[torch.rand(len(chosen), generator=generator) < _UNPROMPTED] = self._empty
        spread = (torch.rand(1, generator=generator) + torch.arange(self._batch) / self._batch) % 1
        times = (spread * _TIMES).long()[torch.randperm(self._batch, generator=generator)]
        clean = self._latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        device = self._run.device
        return self.at(clean.to(device), tokens.to(device), times.to(device), noise.to(device))

    def at(self, clean: Tensor, tokens: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Give the mean squared error of the velocity at given times and noise."""
        share = self._signal[times].view(-1, 1, 1, 1)
        signal, level = share.sqrt(), (1 - share).sqrt()
        with self._run.autocast():
            text = self._pipeline.text_encoder(tokens)[0]
            made = self._pipeline.unet(signal * clean + level * noise, times, text, return_dict=False)[0]
        loss: Tensor = (made.float() - (signal * noise - level * clean)).pow(2).mean()
        return loss

    def _chosen(self, step: int) -> Tensor:
        """Give a step's samples: each epoch goes once through all of them, in its own order."""
        per_epoch = max(1, len(self._latents) // self._batch)
        epoch, at = divmod(step, per_epoch)
        order = torch.randperm(len(self._latents), generator=rng(self._run.seed + 4, epoch))
        return order[torch.arange(at * self._batch, (at + 1) * self._batch) % len(order)]


def train(run: Run, start: Path | None = None, effort: Effort | None = None) -> Path:
    """Train the image model and save a folder that diffusers loads; give the folder.

    Args:
        run: Where and how long. Of its budget an eighth goes to the autoencoder, another to its decoder alone.
        start: A model folder whose weights to start from; its encoder is kept. None: from nothing.
        effort: How much to do. None: what the recipe says.
    """
    effort = effort or Effort()
    if start is None:
        pipeline = make_pipeline(run.seed, captions.make_tokenizer(run.seed, effort.captions))
        vae = autoencoder.train(_part(run, _AUTOENCODER_SHARE), effort.autoencoder_steps, effort.crops)
        pipeline.register_modules(vae=vae)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(start, dtype=torch.float32, local_files_only=True)
    vae = autoencoder.polish(pipeline.vae, _part(run, _AUTOENCODER_SHARE), effort.decoder_steps, effort.crops)
    pipeline.register_modules(vae=vae.to(memory_format=torch.contiguous_format))
    return improve(pipeline, _part(run, 1 - 2 * _AUTOENCODER_SHARE), run.out / "moa-tiny-image", effort)


def improve(pipeline: StableDiffusionPipeline, run: Run, folder: Path, effort: Effort) -> Path:
    """Train denoiser and text encoder of a pipeline whose autoencoder is settled; save it all the while."""
    z, tokens = make_latents(pipeline.vae, pipeline.tokenizer, run, effort.latents)
    unet, text = pipeline.unet.to(run.device).train(), pipeline.text_encoder.to(run.device).train()
    unet.requires_grad_(True)
    text.requires_grad_(True)
    if run.device.type == "cpu":  # the fused attention's backward pass is slower than all convolutions (torch 2.13)
        unet.set_attn_processor(AttnProcessor())
        text.set_attn_implementation("eager")
    modules = {"unet": unet, "text_encoder": text}
    recipe = Recipe("denoiser", effort.steps, lr=1.6e-3)
    fit(Objective(pipeline, z, tokens, run, effort.batch), modules, recipe, run, keep=lambda: save(pipeline, folder))
    save(pipeline, folder)
    return folder


def _part(run: Run, share: float) -> Run:
    return replace(run, budget_s=run.budget_s * share) if run.budget_s else run


def save(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save the pipeline in float16 safetensors; the one given stays as it is."""
    parts = {name: copy.deepcopy(getattr(pipeline, name)).half().cpu() for name in ("vae", "text_encoder", "unet")}
    StableDiffusionPipeline(
        **parts,
        tokenizer=pipeline.tokenizer,
        scheduler=pipeline.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    for config in folder.rglob("*.json"):  # diffusers notes where a part was loaded from: a path of this machine
        read = json.loads(config.read_text())
        if read.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(read, indent=2) + "\n")
