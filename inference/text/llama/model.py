"""Load a GGUF file with llama.cpp: weights, tokenizer and chat template are all in it."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llguidance import LLTokenizer, TokenizerWrapper

from inference import machine, options, sources
from inference.options import TextOptions
from inference.text.answer import OPEN
from inference.text.constraint import Grammars
from inference.text.llama.decoder import LlamaDecoder
from inference.text.llama.library import library
from inference.text.template import Template
from inference.text.tools import Tool
from inference.text.turns import Turn
from services.catalogue import Model
from services.common.errors import ModelMisconfigured, Unavailable

_PIECE_BYTES = 512


class LlamaModel:
    """A model of llama.cpp that is in memory; its weights are the file's pages.

    Args:
        path: The GGUF file.
        name: The model's catalogue id, for messages.
        context: Longest prompt and answer together; 0: what the model was trained for.
        revision: Of the weights.
        threads: Threads of one call.
        gpu_layers: Layers that a GPU computes, the first ones; needs a build of llama.cpp for it.

    Raises ModelMisconfigured when llama.cpp cannot load the file or it is no model for conversations.
    """

    def __init__(
        self, path: Path, *, name: str, context: int, revision: str, threads: int, gpu_layers: int = 0
    ) -> None:
        self._library = library()
        if gpu_layers and not self._library.llama_supports_gpu_offload():
            raise ModelMisconfigured(f"model {name}: n_gpu_layers needs a GPU and a build of llama.cpp for it")
        params = self._library.llama_model_default_params()
        params.n_gpu_layers = self._gpu_layers = gpu_layers
        # Weights in another layout would be copies in memory, with products that depend on the number of rows.
        params.use_extra_bufts = False
        self._handle = self._library.llama_model_load_from_file(str(path).encode(), params)
        if not self._handle:
            raise ModelMisconfigured(f"model {name}: llama.cpp cannot load the GGUF file (the inference log says why)")
        self._freed = weakref.finalize(self, self._library.llama_model_free, self._handle)
        self._refuse_others(name)
        self._threads = threads
        self._vocabulary = self._library.llama_model_get_vocab(self._handle)
        self._read_vocabulary()
        trained = int(self._library.llama_model_n_ctx_train(self._handle))
        self.context = min(context or trained, trained)
        self.size_bytes = int(self._library.llama_model_size(self._handle))
        self.revision = revision
        template = self._library.llama_model_chat_template(self._handle, None)
        if not template:
            raise ModelMisconfigured(f"model {name} has no chat template")
        vocabulary = self._vocabulary
        self._template = Template(
            template.decode(),
            bos=self._named(self._library.llama_vocab_bos(vocabulary)),
            eos=self._named(self._library.llama_vocab_eos(vocabulary)),
        )

    @property
    def takes_tools(self) -> bool:
        """Whether its chat template tells of tools."""
        return self._template.takes_tools

    def fewest_tokens(self, text: str) -> int:
        """Return how many tokens a text has at least, without tokenizing.

        Characters that are composed on the way (four to one at most, in Unicode's composition) are allowed for.
        """
        return len(text) // (4 * self._longest)

    def write(
        self, turns: Sequence[Turn], tools: Sequence[Tool] = (), *, think: bool, goes_on: bool = False
    ) -> tuple[str, bool]:
        """Return the prompt by the chat template, and whether it already opened the reasoning."""
        text = self._template.render(turns, tools, think=think, goes_on=goes_on)
        return text, text.rstrip().endswith(OPEN)

    def tokens(self, text: str) -> list[int]:
        """Return a text's tokens, special ones by their names."""
        raw = text.encode(errors="replace")
        room = len(raw) + 8
        buffer = (ctypes.c_int32 * room)()
        count = self._library.llama_tokenize(self._vocabulary, raw, len(raw), buffer, room, False, True)
        if count < 0:
            raise Unavailable("llama.cpp could not tokenize the prompt")
        return list(buffer[:count])

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens; special ones are left out, broken bytes become U+FFFD."""
        return b"".join(self._pieces[token] for token in tokens if token not in self._control).decode(errors="replace")

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Return one token's text and bytes."""
        raw = self._pieces[token]
        return raw.decode(errors="replace"), raw

    def grammars(self) -> Grammars:
        """Return a compiler of schemas for the model's tokens."""
        made = LLTokenizer(TokenizerWrapper(_Vocabulary(self)), n_vocab=len(self._pieces), eos_token=sorted(self.ends))
        return Grammars(made, len(self._pieces))

    def decoder(self, rows: int) -> LlamaDecoder:
        """Return a decoder of `rows` slots."""
        return LlamaDecoder(
            self._library,
            self._handle,
            rows=rows,
            limit=self.context,
            size=len(self._pieces),
            threads=self._threads,
            on_gpu=self._gpu_layers > 0,
        )

    def _refuse_others(self, name: str) -> None:
        """Raise ModelMisconfigured for models whose past is no list of keys and values."""
        for kind in ("has_encoder", "is_recurrent", "is_hybrid"):
            if getattr(self._library, f"llama_model_{kind}")(self._handle):
                raise ModelMisconfigured(f"model {name} is of a kind that this engine does not batch ({kind})")

    def _read_vocabulary(self) -> None:
        count = self._library.llama_vocab_n_tokens(self._vocabulary)
        of, buffer = self._vocabulary, ctypes.create_string_buffer(_PIECE_BYTES)
        self._pieces = [self._piece(token, buffer) for token in range(count)]
        self._control = frozenset(t for t in range(count) if self._library.llama_vocab_is_control(of, t))
        self.ends = frozenset(t for t in range(count) if self._library.llama_vocab_is_eog(of, t))
        self._longest = max(map(len, self._pieces))

    def _piece(self, token: int, buffer: Any) -> bytes:
        size = self._library.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, True)
        if size < 0:
            return self._piece(token, ctypes.create_string_buffer(-size))
        return ctypes.string_at(buffer, size)

    def _named(self, token: int) -> str:
        return self._pieces[token].decode(errors="replace") if token >= 0 else ""


class _Vocabulary:
    """The tokens as llguidance wants them."""

    def __init__(self, model: LlamaModel) -> None:
        self.tokens: Sequence[bytes] = model._pieces
        self.special_token_ids = sorted(model._control)
        self.eos_token_id = min(model.ends)
        self.bos_token_id = None
        self._model = model

    def __call__(self, text: bytes | str) -> list[int]:
        return self._model.tokens(text.decode() if isinstance(text, bytes) else text)


def load(model: Model, report: Any, threads: int) -> LlamaModel:
    """Load a catalogue model. Raises ModelMisconfigured when it cannot be."""
    assert model.load is not None
    source = sources.fetch(model.load, report)
    report("weights", 0.4)
    path = Path(source.folder, source.gguf)
    return LlamaModel(
        path,
        name=model.id,
        context=model.context_tokens,
        revision=source.revision,
        threads=options.of(model, TextOptions).threads or threads or machine.cores(),
        gpu_layers=options.of(model, TextOptions).n_gpu_layers,
    )
