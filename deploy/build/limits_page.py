"""Write the tables of `docs/limits.md` from the constants themselves: `python -m deploy.build.limits_page`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.local.database import WAL_MB
from deploy.local.logs import Limits
from gateway import bodies
from gateway import limits as edge
from gateway.settings import EdgeSettings
from services.auth import render
from services.auth.adapters import budgets, teams
from services.auth.adapters.background_responses import MOST_WAITING
from services.auth.adapters.stored_room import Bounds
from services.auth.domain import request_log
from services.auth.domain.accounts import DEFAULT_LIMITS
from services.auth.domain.keys import MAX_KEY_CHARS
from services.auth.settings import LEAST_KEPT_DAYS, AuthSettings
from services.common import byte_admission, idempotency, images, large, protojson
from services.providers.http import client as http
from services.router.adapters import fetching
from services.router.adapters import request_log as request_logs
from services.router.dialects.responses.background import MOST_S
from services.router.domain import growth, kept_content
from services.router.domain.operations import MOST_LINKS
from services.router.domain.prompt import MOST_PARTS
from services.router.idempotency import calls
from services.tasks import operations
from services.tasks.settings import TaskSettings

PAGE: Final = Path("docs/limits.md")
BEGIN: Final = "<!-- limits: written by python -m deploy.build.limits_page -->"
END: Final = "<!-- end of limits -->"


@dataclass(frozen=True)
class Row:
    """One limit: of what, how much, why, and what is told where it is reached."""

    what: str
    limit: str
    why: str
    message: str


def _setting(model: type[Any], name: str) -> Any:
    """Return a setting's default."""
    return model.model_fields[name].default


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count:,} bytes"


def requests() -> list[Row]:
    """Return what bounds one request, in the order in which it is met."""
    return [*_of_connections(), *_of_bodies(), *_of_reading(), *_of_large_requests(), *_of_images(), *_of_answers()]


def _of_connections() -> list[Row]:
    heap = edge.overload(EdgeSettings())["resource_monitors"]
    connections = heap[0]["typed_config"]["max_active_downstream_connections"]
    return [
        Row(
            "connections to the edge",
            f"{connections:,}",
            "each costs memory before anything is known of it",
            "the connection is closed",
        ),
        Row(
            "the edge's memory (`MOA_EDGE_HEAP_MB`)",
            f"{_setting(EdgeSettings, 'edge_heap_mb'):,} MiB",
            "it refuses before it dies of bodies",
            "503, `Retry-After: 1`",
        ),
        Row(
            "streams of one HTTP/2 connection",
            str(edge.CALLERS["max_concurrent_streams"]),
            "one caller does not take the place of others",
            "HTTP/2 makes the next wait",
        ),
        Row("a key", f"{MAX_KEY_CHARS} characters", "longer ones are none of ours, and cost a digest", "401"),
    ]


def _of_bodies() -> list[Row]:
    return [
        Row(
            "a body that is not multipart",
            _bytes(_setting(EdgeSettings, "json_limit_bytes")),
            "a picture of 10 MiB as base64, and its words",
            "413",
        ),
        Row(
            "a multipart body",
            _bytes(_setting(EdgeSettings, "upload_limit_bytes")),
            "several pictures of 10 MiB",
            "413",
        ),
        Row(
            "a body on a path without pictures or prompts",
            _bytes(bodies.FREE_BYTES),
            "nothing larger is meant to come there",
            "413",
        ),
        Row(
            "headers of a request",
            f"{edge.HEADERS_KIB} KiB, and {edge.HEADERS} of them",
            "Envoy holds them before it knows whose they are, so the answer is in no dialect",
            "400; over HTTP/2 the stream is reset",
        ),
        Row(
            "bodies of callers at one address before their keys are known",
            _bytes(_setting(EdgeSettings, "unknown_bytes")),
            "a stranger's bytes cost as much as a customer's",
            "429",
        ),
        Row(
            f"a body's pace, in each {_setting(EdgeSettings, 'body_window_s'):g} s",
            _bytes(bodies.FLOOR_BYTES),
            "slow bodies hold connections and memory",
            "400",
        ),
        Row(
            "a request's arrival as a whole (`MOA_REQUEST_S`)",
            f"{_setting(EdgeSettings, 'request_s'):g} s",
            "64 MiB at 2 Mbit/s",
            "400",
        ),
    ]


def _of_reading() -> list[Row]:
    return [
        Row(
            "values in a JSON body",
            f"{protojson.MOST_VALUES:,}",
            "20 MiB of `{},{},…` take a JSON reader 8 s",
            "413",
        ),
        Row(
            "messages and their parts in one request",
            f"{MOST_PARTS:,}: {MOST_PARTS // 2:,} messages of one text each",
            "each is counted, checked and translated",
            "400, naming `messages`",
        ),
        Row(
            "work on one request in the router's own loop",
            _bytes(large.LARGE_BYTES),
            "larger ones would delay all others; they are read in a helper process, in turn",
            "nothing: it waits its turn",
        ),
    ]


def _of_large_requests() -> list[Row]:
    bounds = byte_admission.Bounds()
    return [
        Row(
            "large requests that a router serves at once",
            f"{_bytes(bounds.served)}, {_bytes(bounds.served_of_account)} of an account",
            "each is in memory until its answer ends",
            "nothing: it waits, and its caller keeps it",
        ),
        Row(
            "large requests that wait for a router before they are sent",
            f"{bounds.unsent_of_account} of an account, {bounds.unsent_s:g} s",
            "each is a connection",
            "429, 503, `Retry-After: 5`",
        ),
        Row(
            "large requests of an account that wait",
            _bytes(bounds.waiting_of_account),
            "the queue is everybody's",
            "429, `Retry-After: 5`",
        ),
        Row(
            "large requests that wait for a router",
            f"{_bytes(bounds.waiting)}, {bounds.wait_s:g} s",
            "they lie in the edge's memory",
            "503, `Retry-After: 5`",
        ),
    ]


def _of_images() -> list[Row]:
    return [
        Row(
            "an image",
            f"{_bytes(images.MAX_BYTES)}, {images.MAX_SIDE}×{images.MAX_SIDE} pixels",
            "by its content, not by what it says of itself; a small file can hold a billion pixels",
            "413, 400",
        ),
        Row("links to images in one request", str(MOST_LINKS), "each is fetched from somewhere", "400"),
        Row(
            "what those links bring, together",
            _bytes(fetching.A_REQUEST_BYTES),
            "it is held until it is sent on",
            "413",
        ),
        Row(
            "what a router fetches at once",
            f"{_bytes(fetching.A_PROCESS_BYTES)}, {fetching.AN_ACCOUNT_AT_ONCE} images of an account",
            "one account does not take all of it",
            f"it waits for {fetching.WAIT_S:g} s, then 503",
        ),
    ]


def _of_answers() -> list[Row]:
    return [
        Row(
            "an idempotency key",
            f"{idempotency.MOST_CHARS} characters",
            "as other APIs have it",
            "400",
        ),
        Row(
            "an answer that is kept for one",
            _bytes(calls.ANSWER_BYTES),
            "it is encrypted and stored",
            "asked again, 409: it was done, and its answer is larger than is kept",
        ),
        Row(
            "tokens that are set aside at first for an answer without `max_tokens`",
            f"{growth.INCREMENT:,}; {growth.UNKNOWN_INCREMENT:,} where neither context nor longest answer is known",
            "one caller does not lock a day's quota; more is set aside as the answer grows",
            "nothing; where the quota ends, so does the answer, by `length`",
        ),
        Row(
            "a provider's answer, and one event of it",
            _bytes(http.MAX_ANSWER_BYTES),
            "a provider may be broken, or not who it seems",
            "502",
        ),
    ]


def accounts() -> list[Row]:
    """Return what bounds an account over time."""
    return [
        Row(
            "a new account's tokens and images a day",
            f"{DEFAULT_LIMITS.tokens_a_day:,} and {DEFAULT_LIMITS.images_a_day}",
            "an administrator gives more",
            "429 until the day's end, with `Retry-After`",
        ),
        Row(
            "budgets of one team, account, key, or of everybody",
            str(budgets.MOST),
            "each that a request counts on is one more counter to lock, and parts what is held ahead",
            "409",
        ),
        Row(
            "a team's own keys",
            f"{teams.KEYS}; at most {render.MAX_TEAM_KEYS:,}",
            "an administrator gives more",
            "409",
        ),
        Row(
            "stored responses and conversations (`MOA_RESPONSES_COUNT`, `MOA_RESPONSES_MB`)",
            f"{_setting(AuthSettings, 'responses_count'):,} of {_setting(AuthSettings, 'responses_mb')} MiB together;"
            f" {_bytes(Bounds().one_bytes)} each; {Bounds().chain:,} go on from one another",
            "they are encrypted and stored",
            "429 (`insufficient_quota`) until some are deleted; 413; 400",
        ),
        Row(
            "responses of an account that wait or are made in the background",
            f"{MOST_WAITING}, each for {MOST_S / 3600:g} h at most",
            "the queue is everybody's",
            "429 (`queue_full`); it has failed",
        ),
        Row(
            "a stored response (`MOA_RESPONSES_DAYS`)",
            f"kept for {_setting(AuthSettings, 'responses_days'):g} days after it was last gone on from",
            "disks are finite",
            "404",
        ),
        *_tasks(),
    ]


def _tasks() -> list[Row]:
    return [
        Row(
            "tasks of an account that wait",
            f"{_setting(TaskSettings, 'task_waiting_per_account'):,}",
            "the queue is everybody's",
            "429 (`queue_full`)",
        ),
        Row(
            "tasks of an account that run",
            str(_setting(TaskSettings, "task_per_account")),
            "accounts take turns",
            "nothing: they wait",
        ),
        Row("images of a task", str(operations.MAX_IMAGES), "a longer one would be lost as a whole", "400"),
        Row(
            "a task's time, waiting included",
            f"{_setting(TaskSettings, 'task_deadline_s') / 3600:g} h; its caller may say up to"
            f" {operations.MAX_DEADLINE_S / 3600:g} h",
            "its quota is set aside meanwhile",
            "it fails: `deadline_exceeded`",
        ),
        Row(
            "an ended task and its outputs",
            f"kept for {_setting(TaskSettings, 'task_keep_s') / 86400:g} days",
            "disks are finite",
            "404",
        ),
    ]


def machine() -> list[Row]:
    """Return what bounds the disk of the machine."""
    logs = Limits()
    return [
        Row(
            "a process's log (`MOA_LOG_MB`, `MOA_LOG_FILES`, `MOA_LOG_DAYS`)",
            f"{_bytes(logs.file_bytes)}, {logs.files} files before it, {logs.days:g} days",
            "a line a request adds up",
            "the oldest file goes",
        ),
        Row(
            "the embedded PostgreSQL's write-ahead log",
            f"about {WAL_MB} MiB",
            "what a checkpoint has written is used again",
            "nothing: a checkpoint comes earlier",
        ),
        Row(
            "a row of the ledger (`MOA_LEDGER_RETENTION_DAYS`)",
            f"for ever; {LEAST_KEPT_DAYS} days at least",
            "what came late must be known to be booked",
            "a page of the ledger has `complete_since`; its sums stay",
        ),
        Row(
            "a logged request (`request_log.days` of its team)",
            f"{request_log.USUAL_DAYS} days; {request_log.MOST_DAYS} at most",
            "who wants more has it exported",
            "404; it is in no list",
        ),
        Row(
            "what is kept of a logged prompt, and of an answer",
            _bytes(kept_content.MOST_BYTES),
            "a look at a request is not its archive",
            "`request_truncated`, `answer_truncated`",
        ),
        Row(
            "what waits to be logged in a router",
            f"{request_logs.MOST:,} requests, {_bytes(request_logs.MOST_BYTES)}",
            "no request waits for its log",
            "`dropped` of a list, `moa_request_log_dropped_total`",
        ),
    ]


def table(rows: list[Row]) -> str:
    """Return rows as Markdown."""
    lines = ["| of | limit | why | what is told |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.what} | {row.limit} | {row.why} | {row.message} |" for row in rows)])


def written(page: str) -> str:
    """Return the page with its tables as they should be. Raises ValueError for a page without their place."""
    before, begins, rest = page.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not begins or not ends:
        raise ValueError(f"{PAGE} has no place for its tables")
    parts = [("## One request", requests()), ("## An account", accounts()), ("## The machine", machine())]
    tables = "\n\n".join(f"{title}\n\n{table(rows)}" for title, rows in parts)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
