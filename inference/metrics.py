"""What the engines count."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TICKS = Counter("moa_engine_ticks_total", "Denoiser calls or decoding steps.", ["model"])
ROWS = Counter("moa_engine_rows_total", "Rows that those calls carried, padding left out.", ["model"])
DECODES = Counter("moa_engine_decodes_total", "Latents decoded to images.", ["model"])
WAITING = Gauge("moa_engine_waiting", "Requests that wait for a place.", ["model"])
RUNNING = Gauge("moa_engine_running", "Requests that are being worked on.", ["model"])
ENDED = Counter("moa_engine_ended_total", "Requests ended, by how.", ["model", "how"])
WORK = Counter(
    "moa_engine_work_total",
    "What requests cost, by their priority: tokens read and decoded, or lanes times latent pixels of steps.",
    ["model", "priority"],
)
TOKENS = Counter("moa_engine_tokens_total", "Tokens generated.", ["model"])
TICK_SECONDS = Histogram(
    "moa_engine_tick_seconds",
    "Time of one tick.",
    ["model"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LOAD_SECONDS = Histogram(
    "moa_engine_load_seconds", "Time to load a model.", ["model"], buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
)
RESIDENT_BYTES = Gauge("moa_engine_resident_bytes", "Bytes of weights that are loaded.", ["model"])
