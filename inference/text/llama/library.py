"""llama.cpp's C interface (`llama.h`), from the shared library that the package xllamacpp carries.

The package's own Python interface is llama.cpp's server. What is needed here lies below it: logits of chosen rows, so
that sampling, schemas and fair queues are the same as for every other text model. `llama.h` changes between builds, so
the declarations below hold for one version of the package, and no other is called.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
import sys
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from services.common import logs
from services.common.errors import ModelMisconfigured

_log = logs.get("llama")

PACKAGE: Final = "xllamacpp"
VERSION: Final = "2026.10.11549"
"""The version whose `llama.h` is declared here; requirements/inference.in pins it."""

_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
_ERROR_LEVEL: Final = 4
FLASH_ATTENTION_ON: Final = 1


class ModelParams(Structure):
    """`llama_model_params`."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(Structure):
    """`llama_context_params`."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(Structure):
    """`llama_batch`."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "llama_backend_init": (None,),
    "llama_log_set": (None, _LOG, c_void_p),
    "llama_supports_gpu_offload": (c_bool,),
    "llama_model_default_params": (ModelParams,),
    "llama_context_default_params": (ContextParams,),
    "llama_model_load_from_file": (c_void_p, c_char_p, ModelParams),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_model_size": (c_uint64, c_void_p),
    "llama_model_has_encoder": (c_bool, c_void_p),
    "llama_model_is_recurrent": (c_bool, c_void_p),
    "llama_model_is_hybrid": (c_bool, c_void_p),
    "llama_model_chat_template": (c_char_p, c_void_p, c_char_p),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_vocab_bos": (c_int32, c_void_p),
    "llama_vocab_eos": (c_int32, c_void_p),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int32),
    "llama_vocab_is_control": (c_bool, c_void_p, c_int32),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
    "llama_token_to_piece": (c_int32, c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool),
    "llama_init_from_model": (c_void_p, c_void_p, ContextParams),
    "llama_free": (None, c_void_p),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int32, c_int32, c_int32),
    "llama_memory_seq_cp": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "llama_batch_init": (Batch, c_int32, c_int32, c_int32),
    "llama_batch_free": (None, Batch),
    "llama_decode": (c_int32, c_void_p, Batch),
    "llama_get_logits_ith": (POINTER(c_float), c_void_p, c_int32),
}


def _heard(level: int, text: bytes, _data: object) -> None:
    if level == _ERROR_LEVEL:
        _log.error("llama.said", text=text.decode(errors="replace").strip()[:500])


_HEARD = _LOG(_heard)
"""Kept, for the library calls it as long as the process lives."""


def offered() -> bool:
    """Return whether the library is installed, in the version that is declared here."""
    try:
        return metadata.version(PACKAGE) == VERSION
    except metadata.PackageNotFoundError:
        return False


@functools.cache
def library() -> Any:
    """Return the library, its functions declared. Raises ModelMisconfigured without it."""
    if not offered():
        raise ModelMisconfigured(f"llama.cpp is not installed here ({PACKAGE} {VERSION}), which engine: llama needs")
    # Waiting threads must not spin: other processes share these cores. Read once, when OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _load_openmp()
    try:
        found = ctypes.CDLL(str(_path()))
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        _log.error("llama.not_loaded", why=str(error))
        raise ModelMisconfigured("llama.cpp's library cannot be loaded on this machine") from error
    _check(found)
    found.llama_log_set(_HEARD, None)
    found.llama_backend_init()
    return found


def _path() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for place in places for file in Path(place).glob(f"{PACKAGE}*.so")]
    if not files:
        raise OSError(f"no library in {places}")
    return files[0]


def _load_openmp() -> None:
    """Load the OpenMP library that comes with torch: a slim system has none, and one in a process is enough."""
    if sys.platform != "linux":
        return
    spec = importlib.util.find_spec("torch")
    places = list(spec.submodule_search_locations or ()) if spec else []
    for file in (file for place in places for file in Path(place, "lib").glob("libgomp*.so*")):
        ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def _check(found: Any) -> None:
    """Raise ModelMisconfigured when defaults come back otherwise than `llama.h` says: the declarations do not fit."""
    model, context = found.llama_model_default_params(), found.llama_context_default_params()
    fits = (
        (context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max) == (512, 2048, 512, 1)
        and (context.flash_attn_type, context.type_k, context.type_v) == (-1, 1, 1)
        and (context.embeddings, context.offload_kqv, context.kv_unified) == (False, True, False)
        and (model.vocab_only, model.check_tensors, model.use_extra_bufts) == (False, False, True)
    )
    if not fits:
        _log.error("llama.does_not_fit", system=platform.platform())
        raise ModelMisconfigured("llama.cpp's library is not the build that this gateway was written for")
