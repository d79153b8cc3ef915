"""A tiny encoder with random weights, in the layout of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = [
    "a",
    "the",
    "fox",
    "crow",
    "river",
    "desk",
    "city",
    "sky",
    "blue",
    "red",
    "is",
    "was",
    "on",
    "in",
    "of",
    "three",
]


def built(folder: Path, *, pooling: str = "mean_tokens", normalises: bool = True, longest: int = 24) -> Path:
    """Write the encoder; return its folder."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *map(chr, range(97, 123))]
    vocabulary += [f"##{letter}" for letter in map(chr, range(97, 123))]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"))
    tokenizer.save(str(folder / "tokenizer.json"))
    BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).eval().save_pretrained(folder)
    described: dict[str, Any] = {
        "1_Pooling/config.json": {
            f"pooling_mode_{name}": name == pooling for name in ("mean_tokens", "cls_token", "max")
        },
        "sentence_bert_config.json": {"max_seq_length": longest},
        "modules.json": [
            {"type": f"sentence_transformers.models.{name}"}
            for name in ("Transformer", "Pooling", *(["Normalize"] if normalises else []))
        ],
    }
    for name, value in described.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder
