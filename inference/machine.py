"""Bring torch up, once a process and off the event loop's thread."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from inference.needs import available_bytes
from services.common import logs
from services.common.errors import ModelMisconfigured

_log = logs.get("machine")
_LOCK = threading.Lock()
_LOWEST: Final = 19
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
"""The system call's number (linux/ioprio.h; the C library has no function for it)."""
_OF_A_THREAD: Final = 1
_IDLE_DISK: Final = 3 << 13
_done = False


def bring_up(threads: int) -> None:
    """Import torch, transformers and diffusers and set them up; takes seconds the first time, nothing after.

    Args:
        threads: Threads of one operation on the CPU; 0 leaves torch's choice, the physical cores.
    """
    global _done
    with _LOCK:
        if _done:
            return
        # Waiting threads must not spin: other processes share these cores (measured: a spinning pair is 20x slower
        # than one thread while another process works).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's deprecations at import
            import diffusers
            import torch
            import transformers
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        if threads:
            torch.set_num_threads(threads)
        _log.info("torch.imported", version=torch.__version__, threads=torch.get_num_threads())
        _done = True


def lower_priority() -> Callable[[], None]:
    """Let this thread have the CPU and the disk when nobody else wants them; return what raises it again, if it may.

    Threads that it starts meanwhile inherit it. Linux only; elsewhere both do nothing.
    """
    if sys.platform != "linux":
        return lambda: None
    thread, before = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    os.setpriority(os.PRIO_PROCESS, thread, _LOWEST)
    if number := _IOPRIO_SET.get(platform.machine()):
        ctypes.CDLL(None).syscall(number, _OF_A_THREAD, thread, _IDLE_DISK)

    def raised() -> None:
        with contextlib.suppress(OSError):  # only root may, and the thread may have ended
            os.setpriority(os.PRIO_PROCESS, thread, before)
            if number:
                ctypes.CDLL(None).syscall(number, _OF_A_THREAD, thread, 0)

    return raised


def cores() -> int:
    """Return the physical cores that this process may use: two threads of one share its arithmetic."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, os.cpu_count() or 1)
    mine = os.sched_getaffinity(0)
    first = set()
    for number in mine:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text()
            first.add(siblings.strip())
        except OSError:
            return len(mine)
    return len(first)


def tidy() -> None:
    """Give the memory of unloaded models back: theirs are reference cycles, which wait for the collector."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and _done and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        # glibc keeps freed blocks for itself otherwise.
        ctypes.CDLL(None).malloc_trim(0)


class Seen(NamedTuple):
    """A device that models run on."""

    name: str
    description: str
    total_bytes: int
    """0: it cannot be told."""
    free_bytes: int | None
    """None: it cannot be told."""


def devices() -> list[Seen]:
    """Return the devices that are known now: the processor, and torch's once it was brought up. Brings nothing up."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        total = 0
    found = [Seen("cpu", f"{platform.machine()}, {cores()} cores", total, available_bytes())]
    torch = sys.modules.get("torch")
    if torch is not None and _done and torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, whole = torch.cuda.mem_get_info(number)
            found.append(Seen(f"cuda:{number}", torch.cuda.get_device_name(number), whole, free))
    return found


def device_of(wanted: str) -> str:
    """Return the device that a catalogue's `device` means on this machine."""
    import torch

    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def computes_bfloat16() -> bool:
    """Return whether this CPU computes in bfloat16; where it does not, torch emulates it at a fraction of the speed."""
    import torch

    cpu = torch.cpu.get_capabilities()
    if any(cpu.get(name) for name in ("amx_bf16", "sve_bf16", "bf16")):
        return True
    return bool(cpu.get("avx512_bf16")) and torch.backends.cpu.get_cpu_capability() == "AVX512"


def dtype_of(wanted: str, device: str) -> object:
    """Return the torch dtype that a catalogue's `dtype` means: float32 on CPU, bfloat16 elsewhere.

    Raises ModelMisconfigured for what is for language models only.
    """
    import torch

    if wanted == "int8":
        raise ModelMisconfigured("dtype int8 is for text models; images have `quantize`")
    if wanted == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    return getattr(torch, wanted)
