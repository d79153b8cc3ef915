"""Text on a CPU: the engine on a GGUF file, against llama.cpp's own server and transformers' `generate`.

All three in one process, taking turns, with as many threads. `generate` has the same weights, written out in float32.
Each figure is the median of its rounds, by the clock and by the process's CPU time.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inference.job import Failed
from inference.text.ask import TextAsk
from inference.text.engine import TextEngine
from inference.text.events import Ended, Shown
from inference.text.llama.model import LlamaModel
from inference.text.turns import Turn

PROMPTS = (
    "Why is the sky blue?",
    "Write a Python function that adds two numbers.",
    "Tell me a story about a fox and a crow who met at a river one day in autumn.",
    "What is a prime number? Answer in one sentence.",
    "Name three things that one finds on a desk.",
    "Explain to a child what a star is.",
    "Hello!",
    "List the days of the week, and say which of them is the best one and why that is so.",
)
CONTEXT = 2048
FACTS = 72
"""Sentences of the long prompt."""


class Rate(NamedTuple):
    """Tokens a second."""

    clock: float
    cpu: float


class SharedThread(NamedTuple):
    """Seconds to the first token of a conversation's first turn and of its second."""

    first: float
    second: float


def measure(file: Path, threads: int, rounds: int, tokens: int = 64) -> dict[str, Rate]:
    """Print what each rival manages, and return the medians."""
    model = LlamaModel(file, name="bench", context=CONTEXT, revision="", threads=threads)
    engine = TextEngine("bench", model, rows=len(PROMPTS))
    engine.start()
    rivals: dict[str, Callable[[], int]] = {
        "engine, 1 request": lambda: _engine(engine, PROMPTS[:1], tokens),
        "llama.cpp's server, 1 request": _server(file, threads, tokens),
        f"engine, {len(PROMPTS)} requests": lambda: _engine(engine, PROMPTS, tokens),
        f"generate, {len(PROMPTS)} requests in turn": _generate(file, model, threads, tokens),
    }
    took: dict[str, list[Rate]] = {name: [] for name in rivals}
    for rival in rivals.values():
        rival()  # once for nothing: files are read, threads started
    for _ in range(rounds):
        for name, rival in rivals.items():
            clock, cpu = time.perf_counter(), time.process_time()
            count = rival()
            took[name].append(Rate(count / (time.perf_counter() - clock), count / (time.process_time() - cpu)))
    medians = {name: Rate(*map(statistics.median, zip(*rates, strict=True))) for name, rates in took.items()}
    for name, rate in medians.items():
        print(f"{name:34} {rate.clock:7.1f} tokens/s, {rate.cpu:7.1f} a second of CPU time", flush=True)
    one, server, many, serial = took.values()
    _ratio("one request, over llama.cpp's server", one, server, 0.9)
    _ratio("eight requests, over generate in turn", many, serial, 2.0)
    turns = [_turns(engine, number) for number in range(rounds)]
    part = statistics.median(turn.second / turn.first for turn in turns)
    print(f"first token of the second turn, over the first turn's at 1,000 tokens: {part:.2f} (goal 0.25)", flush=True)
    engine.stop()
    return medians


def _ratio(what: str, mine: Sequence[Rate], theirs: Sequence[Rate], goal: float) -> None:
    clock = statistics.median(a.clock / b.clock for a, b in zip(mine, theirs, strict=True))
    cpu = statistics.median(a.cpu / b.cpu for a, b in zip(mine, theirs, strict=True))
    print(f"{what}: {clock:.2f} by the clock, {cpu:.2f} by CPU time (goal {goal})", flush=True)


def _engine(engine: TextEngine, prompts: Sequence[str], tokens: int) -> int:
    """Answer all at once, with nothing kept from before; return how many tokens."""
    engine._prefixes.clear()
    works = []
    for prompt in prompts:
        work = engine.prepare(TextAsk(turns=(Turn("user", prompt),), max_tokens=tokens))
        ended = threading.Event()
        engine.submit(work, lambda event, ended=ended: _mark(event, ended))  # type: ignore[misc]
        works.append((work, ended))
    for _, ended in works:
        ended.wait()
    return sum(work.counted().completion for work, _ in works)


def _mark(event: object, ended: threading.Event) -> None:
    if isinstance(event, Ended | Failed):
        ended.set()


def _turns(engine: TextEngine, number: int) -> SharedThread:
    """Ask two turns of a conversation that begins with a thousand tokens, another one each time."""
    long = " ".join(f"Fact {number}-{fact}: the fox {fact} jumps over the dog." for fact in range(FACTS))
    conversation = [Turn("system", long), Turn("user", "What does the fox do?")]
    first, answer = _first(engine, conversation)
    second, _ = _first(engine, [*conversation, Turn("assistant", answer), Turn("user", "And the dog?")])
    return SharedThread(first, second)


def _first(engine: TextEngine, turns: Sequence[Turn]) -> tuple[float, str]:
    """Return the seconds to the first piece, and the answer."""
    work = engine.prepare(TextAsk(turns=tuple(turns), max_tokens=64))
    ended, pieces = threading.Event(), []
    began = time.perf_counter()

    def heard(event: object) -> None:
        if isinstance(event, Shown):
            pieces.append((time.perf_counter() - began, event.piece.text))
        _mark(event, ended)

    engine.submit(work, heard)
    ended.wait()
    return pieces[0][0], "".join(text for _, text in pieces)


def _server(file: Path, threads: int, tokens: int) -> Callable[[], int]:
    """Start llama.cpp's server in this process; return what asks it."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.verbosity = CONTEXT, 1, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def ask() -> int:
        counted = [0]

        def heard(chunk: Any) -> bool:
            if isinstance(chunk, dict) and chunk.get("usage"):
                counted[0] = int(chunk["usage"]["completion_tokens"])
            return False

        body = {
            "messages": [{"role": "user", "content": PROMPTS[0]}],
            "temperature": 0,
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": False,
        }
        server.handle_chat_completions(body, heard)
        return counted[0]

    return ask


def _generate(file: Path, model: LlamaModel, threads: int, tokens: int) -> Callable[[], int]:
    """Load the weights into transformers; return what answers one prompt after the other."""
    import torch

    torch.set_num_threads(threads)
    network = written_out(file)

    def ask() -> int:
        count = 0
        for prompt in PROMPTS:
            ids = model.tokens(model.write((Turn("user", prompt),), think=True)[0])
            given = torch.tensor([ids])
            with torch.inference_mode():
                out = network.generate(
                    given,
                    attention_mask=torch.ones_like(given),
                    do_sample=False,
                    max_new_tokens=tokens,
                    eos_token_id=sorted(model.ends),
                    pad_token_id=min(model.ends),
                )
            count += out.shape[1] - len(ids)
        return count

    return ask


def written_out(file: Path) -> Any:
    """Return a GGUF file of the Llama family as a transformers model in float32."""
    import torch
    from gguf import GGUFReader, dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(str(file))

    def field(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    tensors = {tensor.name: dequantize(tensor.data, tensor.tensor_type).copy() for tensor in reader.tensors}
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tensors["token_embd.weight"]),
            hidden_size=field("embedding_length"),
            intermediate_size=field("feed_forward_length"),
            num_hidden_layers=field("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
            rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
            max_position_embeddings=field("context_length"),
            tie_word_embeddings="output.weight" not in tensors,
        )
    )
    state = {}
    for name, values in tensors.items():
        turned = {"attn_q": heads, "attn_k": kv_heads}.get(name.split(".")[-2], 0)
        if turned:  # llama.cpp's rotation has pairs beside each other, transformers' half a head apart
            rows, columns = values.shape
            values = values.reshape(turned, rows // turned // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        state[_renamed(name)] = torch.from_numpy(values.copy())
    network.load_state_dict(state, strict=network.config.tie_word_embeddings is False)
    network.tie_weights()
    return network.eval()


def _renamed(name: str) -> str:
    """Return transformers' name of a tensor."""
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    _, number, part, kind = name.split(".")
    inner = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_output": "self_attn.o_proj",
        **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
        **{f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")},
    }
    return f"model.layers.{number}.{inner[part]}.{kind}"
