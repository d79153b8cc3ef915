"""Load a causal language model and its tokenizer with transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

from inference import hub, machine, options, sources
from inference.options import TextOptions
from inference.text import template
from inference.text.answer import OPEN
from inference.text.constraint import Grammars
from inference.text.conversation import in_words, natively
from inference.text.int8 import quantise
from inference.text.tools import Tool
from inference.text.torch_decoder import TorchDecoder
from inference.text.turns import Turn
from inference.tokenizing import Tokens, tokens_by
from services.catalogue import Model
from services.common.errors import InvalidField, ModelMisconfigured

Report = Callable[[str, float], None]
"""Told the stage and the part that is done."""


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A model of transformers that is in memory."""

    network: Any
    tokenizer: Any
    device: str
    context: int
    """Longest prompt and answer together, in tokens."""
    ends: frozenset[int]
    """Tokens that end an answer."""
    revision: str
    size_bytes: int
    longest: int
    """How many characters of a text one token stands for at most; 0: any number."""
    takes_tools: bool
    """Whether the chat template tells of tools."""
    tokenize: Tokens

    def fewest_tokens(self, text: str) -> int:
        """Return how many tokens a text has at least, without tokenizing."""
        return len(text) // self.longest if self.longest else 0

    def write(
        self, turns: Sequence[Turn], tools: Sequence[Tool] = (), *, think: bool, goes_on: bool = False
    ) -> tuple[str, bool]:
        """Return the prompt by the chat template, and whether it already opened the reasoning.

        `goes_on`: the last turn is the beginning of the answer.
        """
        messages = natively(turns) if self.takes_tools else in_words(turns, tools)
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tools=[tool.shown() for tool in tools] if tools and self.takes_tools else None,
                tokenize=False,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                enable_thinking=think,
            )
        except Exception as error:  # the template is the model's own program; it refuses in its own words
            raise InvalidField(f"the model's chat template refuses this conversation: {error}"[:300]) from None
        return text, text.rstrip().endswith(OPEN)

    def tokens(self, text: str) -> list[int]:
        """Return a text's tokens, special ones by their names."""
        return self.tokenize(text)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens; special ones are left out, broken bytes become U+FFFD."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Return one token's text and bytes."""
        text = str(self.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if "\ufffd" not in text:
            return text, text.encode()
        name = self.tokenizer.convert_ids_to_tokens(token)
        raw = bytes(_BYTE_OF[c] for c in name) if all(c in _BYTE_OF for c in name) else text.encode()
        return text, raw

    def grammars(self) -> Grammars:
        """Return a compiler of schemas for the model's tokens."""
        import llguidance.hf

        size = self.network.get_output_embeddings().weight.shape[0]
        ends = sorted(self.ends)
        return Grammars(llguidance.hf.from_tokenizer(self.tokenizer, n_vocab=size, eos_token=ends), size)

    def decoder(self, rows: int) -> TorchDecoder:
        """Return a decoder of `rows` slots."""
        return TorchDecoder(self.network, rows=rows, limit=self.context, device=self.device)


def _byte_alphabet() -> dict[str, int]:
    """Return the alphabet in which byte-level BPE writes its tokens (openai/gpt-2, `bytes_to_unicode`)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def load(model: Model, report: Report, trusted: tuple[str, ...]) -> TorchModel:
    """Load a catalogue model. Weights are read from safetensors only; code of the repository runs only if trusted."""
    assert model.load is not None
    source = sources.fetch(model.load, report)
    device = machine.device_of(model.load.device)
    trust = model.load.source in trusted
    if not trust and _has_own_code(Path(source.folder)):
        raise ModelMisconfigured(
            f"model {model.id} needs its repository's own code, which runs here only if it is allowed"
        )
    report("tokenizer", 0.3)
    tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust)
    if not tokenizer.chat_template:
        raise ModelMisconfigured(f"model {model.id} has no chat template")
    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ModelMisconfigured(
            f"model {model.id} has layers that this engine does not batch: {', '.join(sorted(kinds))}"
        )
    dtype = computing_dtype(model, device, config)
    report("weights", 0.4)
    network = AutoModelForCausalLM.from_pretrained(
        source.folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        variant=hub.variant_in(Path(source.folder), options.of(model, TextOptions).variant),
        trust_remote_code=trust,
        attn_implementation=options.of(model, TextOptions).attention,
    )
    network.eval().requires_grad_(False)
    if model.load.dtype == "int8":
        report("quantising", 0.8)
        quantise(network)
    report("device", 0.9)
    network.to(device)
    limit = int(getattr(config, "max_position_embeddings", 0) or 4096)
    return TorchModel(
        network=network,
        tokenizer=tokenizer,
        device=device,
        context=min(model.context_tokens or limit, limit),
        ends=_ends(network, tokenizer),
        revision=source.revision,
        size_bytes=sum(p.numel() * p.element_size() for p in (*network.parameters(), *network.buffers())),
        longest=_longest(tokenizer),
        takes_tools=template.takes_tools(_template_of(tokenizer)),
        tokenize=tokens_by(tokenizer),
    )


def computing_dtype(model: Model, device: str, config: Any) -> Any:
    """Return the number format to compute in.

    On a CPU that is float32, but bfloat16 where the CPU computes it and the weights are stored in it: nothing is lost
    then, and they stay the file's pages. Raises ModelMisconfigured for int8 where it would be slower than float32.
    """
    assert model.load is not None
    wanted = model.load.dtype
    if wanted == "int8":
        if device != "cpu" or not machine.computes_bfloat16():
            raise ModelMisconfigured(
                f"model {model.id}: dtype int8 needs a CPU that computes in bfloat16 (AVX-512 BF16, AMX, Arm)"
            )
        return torch.bfloat16
    stored = str(getattr(config, "dtype", "")).removeprefix("torch.")
    if wanted == "auto" and device == "cpu" and stored == "bfloat16" and machine.computes_bfloat16():
        return torch.bfloat16
    return machine.dtype_of(wanted, device)


def _template_of(tokenizer: Any) -> str:
    """Return the chat template that is used with tools: a tokenizer may have several, by name."""
    found = tokenizer.chat_template
    return str(found.get("tool_use") or found.get("default") or "") if isinstance(found, dict) else str(found)


def _has_own_code(folder: Path) -> bool:
    """Return whether a model is of a kind that transformers does not have itself."""
    config = json.loads((folder / "config.json").read_text())
    return "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING


def _longest(tokenizer: Any) -> int:
    """Return how many characters one token stands for at most; 0 where one stands for any number of unknown ones."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = getattr(backend, "model", None)
    if getattr(model, "fuse_unk", False) and not getattr(model, "byte_fallback", False):
        return 0
    longest = max(map(len, tokenizer.get_vocab()))
    # Where texts are normalized first, characters are composed: four to one at most (Unicode, NFC).
    return longest if backend is not None and backend.normalizer is None else 4 * longest


def _ends(network: Any, tokenizer: Any) -> frozenset[int]:
    given = network.generation_config.eos_token_id
    listed = given if isinstance(given, list) else [given]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


__all__ = ["Report", "TorchModel", "load"]
