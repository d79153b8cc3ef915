"""Vision models with random weights, of every family, small enough to build in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inference import machine

VISION = Path("inference/models/moa-tiny-vision")
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
_SEEN = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def built(kind: str, folder: Path, *, pickled: bool = False) -> Path:
    """Write a model of a kind (`clip`, `siglip`, `owlv2`, `florence2`) with its tokenizer; give its folder."""
    machine.bring_up(1)
    import torch
    from transformers import CLIPTokenizer

    torch.manual_seed(1)
    tokenizer: Any = CLIPTokenizer.from_pretrained(VISION, local_files_only=True)
    if kind == "florence2":
        tokenizer.add_tokens(["<image>", *(f"<loc_{i}>" for i in range(1000))])
    network = _network(kind, tokenizer)
    folder.mkdir(parents=True)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pickled:
        torch.save(network.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    reading: dict[str, Any] = {"size": {"height": 32, "width": 32}}
    if kind == "clip":
        reading = {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(reading))
    return folder


def _network(kind: str, tokenizer: Any) -> Any:
    import transformers as t

    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**_TEXT, **ends, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.eos_token_id}
    if kind == "clip":
        return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=_SEEN, projection_dim=16))
    if kind == "siglip":
        return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=_SEEN))
    if kind == "owlv2":
        return t.Owlv2ForObjectDetection(t.Owlv2Config(text_config=text, vision_config=_SEEN, projection_dim=16))
    written = {
        "model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128,
        "vocab_size": len(tokenizer), **ends, "pad_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id, "forced_eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    seen = {
        "depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
        "patch_prenorm": (False, True), "embed_dim": (8, 16), "num_heads": (2, 2), "num_groups": (2, 2),
        "window_size": 4, "drop_path_rate": 0.0, "projection_dim": 16, "max_temporal_embeddings": 4,
        "max_position_embeddings": 16,
    }  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<image>")
    return t.Florence2ForConditionalGeneration(
        t.Florence2Config(text_config=written, vision_config=seen, image_token_id=image)
    )
