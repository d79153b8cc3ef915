"""The image model's tokenizer: CLIP's kind, learned from generated captions in both languages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from inference.training.loop import dice
from inference.training.pictures import draw

LENGTH: Final = 32
"""Tokens of a prompt, with the marks at both ends."""
_MERGED: Final = 1024
_WORD_END: Final = "</w>"
# CLIPTokenizer splits and normalises so; what is learned here must be what is read there.
_SPLIT: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def make_tokenizer(seed: int, captions: int = 20000) -> CLIPTokenizer:
    """Learn a byte-level BPE from captions; any text can be written in it, whatever its script."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END, unk_token=None))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=_MERGED, initial_alphabet=alphabet, end_of_word_suffix=_WORD_END, show_progress=False
    )
    rng = dice(seed)
    tokenizer.train_from_iterator((draw(rng).caption for _ in range(captions)), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = dict(learned["vocab"])
    for letter in alphabet:
        for token in (letter, letter + _WORD_END):
            vocabulary.setdefault(token, len(vocabulary))
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[mark] = len(vocabulary)
    merges = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def tokens(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Give the captions' tokens, (captions, 32)."""
    out: Tensor = tokenizer(
        list(captions), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return out.to(torch.int64)
