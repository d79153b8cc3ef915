"""Train moa-tiny-chat: a Llama of two million parameters, on dialogues written as it goes."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from inference.training.dialogues import Message, dialogue
from inference.training.loop import Recipe, Run, dice, fit

VOCABULARY: Final = 2048
CONTEXT: Final = 512
ROWS, ROW_TOKENS = 16, 160
STEPS: Final = 3000
DIALOGUES: Final = 12000
"""That the tokenizer is learned from."""
PAD, END = "<|pad|>", "<|end|>"
MARKS: Final = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE: Final = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_UNSCORED: Final = -100  # what transformers' loss leaves out


def make_tokenizer(seed: int, dialogues: int = DIALOGUES) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE from generated dialogues. Every digit is its own token: sums stay learnable."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = dice(seed)
    tokenizer.train_from_iterator((m["content"] for _ in range(dialogues) for m in dialogue(rng)), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def make_network(vocabulary: int) -> LlamaForCausalLM:
    """Give the network with random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


class Rows:
    """Rows of tokens packed with dialogues; only what the assistant says is scored.

    Dialogues of a row see each other; they are short and independent, so that this costs nothing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rows: int = ROWS, tokens: int = ROW_TOKENS) -> None:
        self._tokenizer = tokenizer
        self._marks = {mark: i for i, mark in enumerate(MARKS)}
        self._shape = rows, tokens

    def encode(self, messages: list[Message]) -> tuple[list[int], list[int]]:
        """Give a dialogue's tokens, as the chat template writes it, and its targets."""
        tokens: list[int] = []
        targets: list[int] = []
        for message in messages:
            body = [*self._tokenizer(message["content"], add_special_tokens=False).input_ids, self._marks[END]]
            tokens += [self._marks[f"<|{message['role']}|>"], *body]
            targets += [_UNSCORED, *(body if message["role"] == "assistant" else [_UNSCORED] * len(body))]
        return tokens, targets

    def draw(self, rng: Random) -> tuple[Tensor, Tensor]:
        """Give a batch's tokens and targets, each (rows, tokens)."""
        rows, length = self._shape
        tokens, targets = [], []
        for _ in range(rows):
            x: list[int] = []
            y: list[int] = []
            while len(x) < length:
                more, scored = self.encode(dialogue(rng))
                x += more
                y += scored
            tokens.append(x[:length])
            targets.append(y[:length])
        return torch.tensor(tokens), torch.tensor(targets)


def train(run: Run, start: Path | None = None, steps: int = STEPS, dialogues: int = DIALOGUES) -> Path:
    """Train and save a folder that transformers loads; give the folder.

    Args:
        start: A model folder whose weights to start from; its tokenizer is kept. None: from nothing.
    """
    folder = run.out / "moa-tiny-chat"
    if start is None:
        tokenizer = make_tokenizer(run.seed, dialogues)
        torch.manual_seed(run.seed)
        network = make_network(len(tokenizer)).to(run.device)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start, local_files_only=True)
        network = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32, local_files_only=True).to(run.device)
    if run.device.type == "cpu":  # the fused attention's backward pass takes twice a whole plain step (torch 2.13)
        network.set_attn_implementation("eager")
    network.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0, max_new_tokens=128, do_sample=False)
    rows = Rows(tokenizer)

    def loss(step: int) -> Tensor:
        tokens, targets = rows.draw(dice(run.seed, step))
        with run.autocast():
            out = network(input_ids=tokens.to(run.device), labels=targets.to(run.device))
        value: Tensor = out.loss
        return value

    lr = 3e-3 if start is None else 1e-3
    fit(loss, {"network": network.train()}, Recipe("text", steps, lr, weight_decay=0.05, ema=0.995), run)
    network.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
