"""SDXL's pipeline from its published configuration (arXiv:2307.01952, section 2), with random weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from inference.bench.makers import FOLDER

TOKENS = 77
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A CLIP text encoder's size."""

    hidden: int
    layers: int
    heads: int
    act: str = "gelu"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes in which a pipeline of this form may differ."""

    channels: tuple[int, ...] = (320, 640, 1280)
    heads: tuple[int, ...] = (5, 10, 20)
    transformers: tuple[int, ...] = (1, 2, 10)
    """Transformer layers of a block; the first block has no attention."""
    groups: int = 32
    vae: tuple[int, ...] = (128, 256, 512, 512)
    time: int = 256
    """Width of each of the six numbers of a picture's size."""
    first: Encoder = field(default_factory=lambda: Encoder(hidden=768, layers=12, heads=12, act="quick_gelu"))
    second: Encoder = field(default_factory=lambda: Encoder(hidden=1280, layers=32, heads=20))


FULL = Shape()


def sdxl(shape: Shape, device: str, dtype: torch.dtype) -> Any:
    """Return the pipeline, on a device and ready to run."""
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer", model_max_length=TOKENS)
    with warnings.catch_warnings(), torch.device(device):
        warnings.simplefilter("ignore")  # other people's deprecations of each other
        torch.manual_seed(0)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(shape).to(dtype=dtype),
            text_encoder=_encoder(shape.first, tokenizer, CLIPTextModel).to(dtype=dtype),
            text_encoder_2=_encoder(shape.second, tokenizer, CLIPTextModelWithProjection).to(dtype=dtype),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=unet(shape).to(dtype=dtype),
            scheduler=EulerDiscreteScheduler(**SCHEDULE),
        )
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)  # models built from a configuration begin in training mode
    return pipeline


def unet(shape: Shape) -> Any:
    """Return the denoiser, where tensors are made by default."""
    return UNet2DConditionModel(
        sample_size=128,
        in_channels=4,
        out_channels=4,
        block_out_channels=shape.channels,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=shape.transformers,
        attention_head_dim=shape.heads,
        cross_attention_dim=shape.first.hidden + shape.second.hidden,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=shape.time,
        projection_class_embeddings_input_dim=6 * shape.time + shape.second.hidden,
        norm_num_groups=shape.groups,
    )


def _vae(shape: Shape) -> Any:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=shape.vae,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=shape.groups,
        sample_size=1024,
        scaling_factor=0.13025,
    )


def _encoder(size: Encoder, tokenizer: Any, kind: Any) -> Any:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=TOKENS,
        hidden_act=size.act,
        projection_dim=size.hidden,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config)
