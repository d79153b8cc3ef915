"""Two PostgreSQL servers, the second of which follows the first by streaming replication and takes its place."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deploy.container import pods
from deploy.container.disks import Disks
from deploy.container.faults import Fault
from deploy.container.images import DATABASE_IMAGE
from deploy.container.trial import Broken, Engine, call, works

_FOLLOWS_S = 60.0
_WRITES = "moa-database"
_DATA = "/var/lib/postgresql/data"


class Servers:
    """The database's servers `one` and `other`. Clients know the name of the one that takes writes, as of a service.

    Args:
        tools: The engine.
        disks: Where their data are, by their names.
        password: Of the database's owner.
    """

    one, other = "moa-db", "moa-db-2"

    def __init__(self, tools: Engine, disks: Disks, password: str) -> None:
        self._run = tools.run
        self._disks = disks
        self._password = password

    @property
    def url(self) -> str:
        """Return the address of the one that takes writes."""
        return f"postgresql://moa:{self._password}@{_WRITES}/moa"

    def begin(self) -> None:
        """Start the first; return once it answers."""
        self._start(self.one, "--network-alias", _WRITES)
        # Its disk is small.
        self._answer(self.one, "alter system set max_wal_size = '64MB'")
        self._answer(self.one, "alter system set min_wal_size = '32MB'")
        line = "host replication all all scram-sha-256"
        call(*self._disks.within(f"echo '{line}' >>/disks/{self.one}/pg_hba.conf"))
        self._answer(self.one, "select pg_reload_conf()")

    def followed(self, leader: str, follower: str, *, synchronously: bool) -> None:
        """Have one follow the other, from a copy of now; return once it does. Synchronous: each commit waits for it."""
        works(*self._run, "rm", "-f", "-v", "-t", "2", follower)
        copy = (
            "rm -rf /data/* && pg_basebackup --host $LEADER --username moa --pgdata /data --write-recovery-conf "
            "--wal-method stream --checkpoint fast && chown -R postgres /data && chmod 700 /data"
        )
        words = ("--network", pods.NETWORK, "--volume", f"{follower}:/data", "--entrypoint", "sh")
        variables = ("--env", f"PGPASSWORD={self._password}", "--env", f"LEADER={leader}")
        call(*self._run, "run", "--rm", *words, *variables, DATABASE_IMAGE, "-c", copy)
        self._start(follower)
        if synchronously:
            self._answer(leader, "alter system set synchronous_standby_names = '*'")
            self._answer(leader, "select pg_reload_conf()")
        wanted = "sync" if synchronously else "async"
        ends = time.monotonic() + _FOLLOWS_S
        while self._answer(leader, "select sync_state from pg_stat_replication where state = 'streaming'") != wanted:
            if time.monotonic() > ends:
                raise Broken(f"{follower} does not follow {leader}")
            time.sleep(0.5)

    def failover(self, leader: str, follower: str, *, cut: Fault | None = None, behind_s: int = 0) -> Fault:
        """Return that the leader is killed for good, and the other takes its place.

        `cut`: the other was cut off from everybody for `behind_s` before, and does not know what was written meanwhile.
        """
        kill = (*self._run, "kill", "-s", "KILL", leader)
        network = (*self._run, "network")
        switch = (
            self._line(follower, "select pg_promote()"),
            (*network, "disconnect", pods.NETWORK, follower),
            (*network, "connect", "--alias", _WRITES, pods.NETWORK, follower),
        )
        if cut is None:
            return Fault("failover, synchronous", [kill, *switch], [])
        return Fault(
            f"failover, {behind_s} s behind", [*cut.begin, ("sleep", str(behind_s)), kill, *cut.end, *switch], []
        )

    def _start(self, name: str, *more: str) -> None:
        account = ("POSTGRES_USER=moa", "POSTGRES_DB=moa", f"POSTGRES_PASSWORD={self._password}", f"PGDATA={_DATA}")
        variables = [word for pair in account for word in ("--env", pair)]
        words = ("-d", "--name", name, "--network", pods.NETWORK, "--volume", f"{name}:{_DATA}", *more)
        call(*self._run, "run", *words, *variables, DATABASE_IMAGE)
        pods.until(lambda: works(*self._line(name, "select 1")), f"{name} never answers")

    def _line(self, name: str, query: str) -> Sequence[str]:
        words = ("psql", "--host", "127.0.0.1", "--username", "moa", "--dbname", "moa", "-qAtX", "-c", query)
        return (*self._run, "exec", "--env", f"PGPASSWORD={self._password}", name, *words)

    def _answer(self, name: str, query: str) -> str:
        return call(*self._line(name, query)).strip()
