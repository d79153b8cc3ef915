"""What the launcher tells of its processes' logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploy.local.notices import Notices

REFUSED = {
    "event": "provider.account_refused",
    "provider": "openai-text",
    "why": "credentials",
    "status": 401,
    "words": "Incorrect API key: [redacted]",
    "model": "gpt-4o-mini",
    "account": "acc_1",
}


class Terminal:
    """Logs of a router and a text service, and what is told of them."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.logs = {name: folder / f"{name}.log" for name in ("router", "text")}
        self.logs["text"].write_text(json.dumps(REFUSED) + "\n")
        self.notices = Notices(self.logs, self.told.append, clock=lambda: self.now)

    def wrote(self, name: str, text: str) -> list[str]:
        """Add to a log, look, and return what is told of it."""
        with self.logs[name].open("a") as log:
            log.write(text)
        before = len(self.told)
        self.notices.look()
        return self.told[before:]


def test_a_refusal_of_the_operators_account_is_one_line(tmp_path: Path) -> None:
    """With the provider's words, status, model and account; nothing of an earlier start, or else in the log."""
    terminal = Terminal(tmp_path)
    assert terminal.wrote("text", '{"event": "rpc.finished"}\nnot JSON\n["provider.account_refused"]\n') == []
    assert terminal.wrote("text", json.dumps(REFUSED) + "\n") == [
        "warning: the provider openai-text refuses the gateway's credentials"
        " (HTTP 401, model gpt-4o-mini, account acc_1): Incorrect API key: [redacted]"
    ]
    (line,) = terminal.wrote("text", json.dumps({**REFUSED, "why": "credit", "status": 0, "words": ""}) + "\n")
    assert line.startswith(
        "warning: the gateway's account with the provider openai-text has no credit left (no answer, "
    )
    assert line.endswith(": it gave no reason")


def test_a_full_disk_is_told_though_no_log_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minute, as all that goes on; the logs lie on it."""
    terminal = Terminal(tmp_path)
    free = shutil.disk_usage(tmp_path)._replace(free=31 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    (line,) = terminal.wrote("router", "")
    assert line.startswith(f"warning: the disk of {tmp_path} is full: ")
    assert terminal.wrote("router", "") == []
    terminal.now = 60
    assert terminal.wrote("router", "") == [f"{line} (and 1 times since this was last said)"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"event": "database.found"}, "the database is reached again"),
        ({"event": "replica.passed_over", "why": "away"}, "not from its replica: it does not answer"),
        ({"event": "replica.passed_over", "why": "refused", "words": "no right"}, "its replica: it refuses: no right"),
    ],
)
def test_what_the_database_is_about(tmp_path: Path, line: dict[str, str], words: str) -> None:
    """That it is back, and why a replica is not used."""
    (told,) = Terminal(tmp_path).wrote("router", json.dumps(line) + "\n")
    assert told.endswith(words)


def test_a_store_that_fails_is_told_with_why(tmp_path: Path) -> None:
    """Callers are told 500, and nobody looks into the log of a router for it."""
    (line,) = Terminal(tmp_path).wrote("router", '{"event": "store.failed", "why": "SSLError"}\n')
    assert line.startswith("warning: pictures and tasks' outputs cannot be kept or read (SSLError): ")


def test_the_same_is_told_once_a_minute(tmp_path: Path) -> None:
    """A thousand refused requests are one line, and a minute later one with their number; each model has its own."""
    terminal = Terminal(tmp_path)
    assert len(terminal.wrote("text", (json.dumps(REFUSED) + "\n") * 1000)) == 1
    assert len(terminal.wrote("text", json.dumps({**REFUSED, "model": "other"}) + "\n")) == 1
    terminal.now = 59.0
    assert terminal.wrote("text", json.dumps(REFUSED) + "\n") == []
    terminal.now = 61.0
    (line,) = terminal.wrote("text", json.dumps(REFUSED) + "\n")
    assert line.endswith(" (and 1000 times since this was last said)")


def test_no_line_is_missed_when_a_log_is_begun_anew(tmp_path: Path) -> None:
    """What was written to the file before, after the last look, is told too; and nothing twice."""
    terminal = Terminal(tmp_path)
    reloaded = '{"event": "catalogue.reloaded", "models": %d}\n'
    assert terminal.wrote("router", reloaded % 1) == ["the catalogue was read anew: 1 models"]
    log = terminal.logs["router"]
    with log.open("a") as file:
        file.write(reloaded % 2)
    log.replace(log.with_name("router.log.1"))
    assert [line.split()[5] for line in terminal.wrote("router", reloaded % 3)] == ["2", "3"]
    assert terminal.wrote("router", "") == []


def test_a_catalogue_is_told_by_one_router(tmp_path: Path) -> None:
    """Each refused edit, and the end of that; the other processes, which read the file too, say the same."""
    terminal = Terminal(tmp_path)
    refused = json.dumps({"event": "catalogue.refused", "why": "c.yaml: model m: no such field"}) + "\n"
    assert terminal.wrote("text", refused) == []
    for _ in range(2):
        (line,) = terminal.wrote("router", refused)
        assert line.endswith(" is refused, and what it was before is kept: c.yaml: model m: no such field")
    reloaded = json.dumps({"event": "catalogue.reloaded", "models": 7}) + "\n"
    assert terminal.wrote("router", reloaded) == ["the catalogue was read anew: 7 models"]


def test_stored_keys_that_cannot_be_read_are_told_by_one_router(tmp_path: Path) -> None:
    """With what to do: their providers are not offered, as if nothing had been stored."""
    terminal = Terminal(tmp_path)
    line = json.dumps({"event": "provider_keys.unreadable", "variables": ["A_KEY", "B_KEY"]}) + "\n"
    assert terminal.wrote("text", line) == []
    (told,) = terminal.wrote("router", line)
    assert "providers A_KEY, B_KEY cannot be read" in told
    assert "MOA_REQUEST_LOG_KEYS" in told


def test_lines_that_come_in_pieces_and_words_that_move_the_cursor(tmp_path: Path) -> None:
    """Half a line waits for its end; a log that begins anew is read from there; control characters are blanks."""
    terminal = Terminal(tmp_path)
    text = json.dumps({**REFUSED, "words": "a\x1b[2Jb\u202e"}) + "\n"
    assert terminal.wrote("text", text[:40]) == []
    (line,) = terminal.wrote("text", text[40:])
    assert line.endswith(": a [2Jb ")
    assert terminal.wrote("text", "x" * 200_000 + "\n") == []
    terminal.logs["text"].write_text("")
    terminal.notices.look()
    assert len(terminal.wrote("text", json.dumps({**REFUSED, "provider": "other"}) + "\n")) == 1


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        ("FATAL: no password", ": FATAL: no password"),
        (
            "unsupported startup parameter: options",
            "MOA_DATABASE_SESSION_URL names the database itself (docs/database.md)",
        ),
        ("", ": it does not answer"),
    ],
)
def test_a_database_that_is_lost_is_told_in_its_words(tmp_path: Path, words: str, ends: str) -> None:
    """And what to do, where those are of a pooler that takes no limits of time."""
    (line,) = Terminal(tmp_path).wrote("text", json.dumps({"event": "database.lost", "words": words}) + "\n")
    assert line.startswith("warning: the database cannot be reached")
    assert line.endswith(ends)


def test_what_stops_the_gateway_is_told(tmp_path: Path) -> None:
    """A certificate that ran out, of each process by itself, and books that do not balance."""
    terminal = Terminal(tmp_path)
    expired = {"event": "certificate.expired", "names": ["text.moa.internal"], "until": "2026-06-01T00:00:00+00:00"}
    told = "expired at 2026-06-01T00:00:00+00:00: put a new one into MOA_SERVICE_TLS_DIR"
    assert terminal.wrote("text", (json.dumps(expired) + "\n") * 2) == [
        f"warning: the certificate of text.moa.internal {told}"
    ]
    other = {**expired, "names": ["router.moa.internal"]}
    assert terminal.wrote("router", json.dumps(other) + "\n") == [
        f"warning: the certificate of router.moa.internal {told}"
    ]
    refused = {"event": "caller.refused", "why": "certificate", "names": ["evil.moa.internal"]}
    assert terminal.wrote("text", json.dumps(refused) + "\n") == [
        "warning: a process with a certificate for evil.moa.internal is refused: that name may not call there"
    ]
    assert terminal.wrote("text", json.dumps({**refused, "why": "credential", "names": []}) + "\n") == [
        "warning: a process shows another credential and is refused: all need the same MOA_SERVICE_TOKEN"
    ]
    unbalanced = {"event": "ledger.unbalanced", "faults": {"blocks": 2}}
    assert terminal.wrote("text", json.dumps(unbalanced) + "\n") == [
        "warning: the ledger has a fault ({'blocks': 2}); `make audit` names the rows"
    ]
