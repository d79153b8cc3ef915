"""What each process of a gateway on this machine is told: ports, addresses, secrets, folders."""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from deploy.local import keep, secrecy
from deploy.local.first_login import FirstLogin
from deploy.local.ports import Ports
from deploy.local.supervisor import Spec
from deploy.local.topology import (
    AUTH,
    BY_NAME,
    CATALOGUE_KEPT,
    DATABASE,
    EDGE,
    FACTS_DIR,
    LARGE_ROUTER,
    ROUTER,
    TLS_DIR,
    VARIABLES_SET,
    Process,
    worker,
)

REPOSITORY = Path(__file__).resolve().parents[2]
_CATALOGUE: Final = str(REPOSITORY / "gateway" / "catalogue.yaml")
_PYTHONPATH: Final = f"{REPOSITORY / 'gen'}{os.pathsep}{REPOSITORY}"
LARGE_PAGES: Final = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
"""Has glibc ask for large pages for large blocks: half of what a copy of a picture costs is the work on small ones."""


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def at_start(given: Mapping[str, str]) -> dict[str, str]:
    """Return what the first process of a gateway is told: what is given, where the code is, and the catalogue."""
    usual = {"MOA_CATALOGUE": _CATALOGUE, **dict([LARGE_PAGES])}
    return {**usual, **given, "PYTHONPATH": _PYTHONPATH}


def shared(host: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return what several processes are told alike: what is given, and defaults for a gateway on `host`."""
    usual = {
        "MOA_CATALOGUE": _CATALOGUE,
        "MOA_LOG_LEVEL": "info",
        "MOA_BYOK": "0",
        "MOA_SIGNUP": "open" if _is_loopback(host) else "invite",
        "MOA_FETCH": "asked",
        "MOA_NAVER_CLIENT_ID": "",
        "MOA_NAVER_CLIENT_SECRET": "",
        VARIABLES_SET: secrecy.names_set(given),
    }
    return usual | {name: value for name, value in given.items() if name.startswith("MOA_")}


class Plan:
    """The processes of one gateway, by name, and what each is told. Ports are held until `close`.

    Args:
        root: The state folder.
        port: The public port; None: any free one.
        host: The public address.
        given: The variables that processes are told of, beside those that are made here. It may change between starts.
        wanted: Which processes there are.
        workers: How many processes of a kind share its work, by name; one of each by default.
        keep_ports: Whether internal ports are the documented ones where they are free.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None,
        host: str,
        given: Mapping[str, str],
        wanted: Sequence[Process],
        workers: Mapping[str, int],
        keep_ports: bool,
    ) -> None:
        self._root = root
        self._asked_port = port
        self._host = host
        self._given = given
        self._wanted = wanted
        self._kinds = {**BY_NAME, **{process.name: process for process in wanted}}
        self._workers = workers
        self._keep_ports = keep_ports
        self._ports = Ports()
        self._metrics_fds: dict[str, int] = {}
        self._public: dict[str, str] = {}
        self._secrets: dict[str, str] = {}
        self.first_login = FirstLogin()
        self.asked_by: dict[str, int] = {}
        """Files by which processes are asked for that are not started yet, by the variable that names each."""
        self.port = 0
        self.addresses: dict[str, str] = {}
        """Where each process listens, `host:port`."""
        self.metrics: dict[str, int] = {}
        """The port where each process's metrics are."""

    @property
    def url(self) -> str:
        """Return the public address."""
        scheme = "https" if self._given.get("MOA_TLS_CERT") else "http"
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::") else self._host  # noqa: S104  # compared, not bound
        return f"{scheme}://{host}:{self.port}"

    def kind_of(self, name: str) -> Process:
        """Return what a process is; workers after the first have a number."""
        return self._kinds[name.partition("-")[0]]

    @property
    def unused_credentials(self) -> list[str]:
        """Return the given credentials that are not used: the installation keeps others."""
        return [name for name in keep.CREDENTIALS if self._given.get(name, "") not in ("", self._secrets[name])]

    def choose(self) -> None:
        """Choose ports and secrets."""
        self._secrets = keep.internal_secrets(self._root / "secrets.env", self._given)
        self.first_login = FirstLogin()
        give = self._ports.preferring if self._keep_ports else lambda _: self._ports.any()
        for process in self._wanted:
            for number in range(1 if process is EDGE else self._workers.get(process.name, 1)):
                name = worker(process.name, number + 1)
                choose = functools.partial(give, process.metrics_port) if number == 0 else self._ports.any
                if process is EDGE:
                    self.metrics[name] = choose()
                    self.port = self._asked_port or self._ports.any()
                    self.addresses[name] = f"{self._host}:{self.port}"
                else:
                    held = self._ports.reserve(choose)
                    self.metrics[name], self._metrics_fds[name] = held.getsockname()[1], held.fileno()
                    port = give(process.port) if number == 0 else self._ports.any()
                    self.addresses[name] = f"127.0.0.1:{port}"
                if process.public_port is not None:
                    port = give(process.public_port) if number == 0 else self._ports.any()
                    self._public[name] = f"127.0.0.1:{port}"

    def certificate(self, name: str) -> Path | None:
        """Return the folder of a process's certificate; None where processes speak no TLS."""
        folder = self._given.get(TLS_DIR)
        return Path(folder).absolute() / self.kind_of(name).certificate_name if folder else None

    def close(self) -> None:
        """Let go of the ports."""
        self._ports.close()
        self._metrics_fds.clear()

    def spec(self, name: str, database_url: str, log: Path) -> Spec:
        """Return what is run for a process."""
        fds = (self._metrics_fds.get(name), *(self.asked_by.get(each) for each in self.kind_of(name).asks_for))
        inherited = tuple(fd for fd in fds if fd is not None)
        environment = self.environment(name, database_url)
        return Spec(name=name, module=self.kind_of(name).module, environment=environment, log=log, fds=inherited)

    def environment(self, name: str, database_url: str) -> dict[str, str]:
        """Return a process's whole environment. Secrets that it has no use for are left out."""
        process = self.kind_of(name)
        pool = shared(self._host, self._given) | self._secrets
        given = {"MOA_CATALOGUE": pool["MOA_CATALOGUE"], **self._given}
        out = {k: v for k, v in secrecy.inherited(process, given).items() if k not in self._secrets}
        out |= {**{variable: pool[variable] for variable in process.shared}, **process.fixed}
        out["PYTHONPATH"] = _PYTHONPATH
        out.setdefault(*LARGE_PAGES)
        out["MOA_LISTEN"] = self.addresses[name]
        if process.public_port is not None:
            out["MOA_PUBLIC_LISTEN"] = self._public[name]
        for variable, callee in process.calls.items():
            out[variable] = database_url if callee == DATABASE else self._callees(callee, process)
        if (certificate := self.certificate(name)) is not None:
            out[TLS_DIR] = str(certificate)
        for variable, folder in process.folders.items():
            path = keep.private_folder(self._root / "state" / folder)
            out[variable] = str(path)
        for variable, folder in ((FACTS_DIR, "facts"), (CATALOGUE_KEPT, "catalogue")):
            if variable in process.optional:
                out.setdefault(variable, str(keep.private_folder(self._root / "state" / folder)))
        if process.store:
            out.setdefault("MOA_STORE_DIR", str(self._root / "objects"))
            out.setdefault("MOA_PUBLIC_URL", self.url)
        if process is AUTH:
            out |= self.first_login.environment
            out.setdefault("MOA_PUBLIC_URL", self.url)
        if process.name in (ROUTER.name, LARGE_ROUTER.name):
            # One file, which all processes of this machine watch.
            out.setdefault("MOA_CATALOGUE_EDITABLE", "1")
        out |= {each: str(self.asked_by[each]) for each in process.asks_for if each in self.asked_by}
        if process is EDGE:
            targets = ",".join(f"{n}=127.0.0.1:{p}" for n, p in self.metrics.items() if n != name)
            out |= {"MOA_METRICS_TARGETS": targets, "MOA_INTERNAL_LISTEN": f"127.0.0.1:{self.metrics[name]}"}
            out["MOA_DESCRIPTORS"] = str(REPOSITORY / "build" / "moa.binpb")
            # One keeper runs all of them.
            out.setdefault("MOA_EDGE_PROCESSES", str(self._workers.get(name, 1)))
        else:
            out["MOA_METRICS_PORT"] = str(self.metrics[name])
            if name in self._metrics_fds:
                out["MOA_METRICS_FD"] = str(self._metrics_fds[name])
        return out

    def _callees(self, name: str, caller: Process) -> str:
        """Return where a process is called. One that this stack leaves out may be named by the environment."""
        book = {**self.addresses, **self._public} if caller is EDGE else self.addresses
        stands_in = BY_NAME[name].stands_in
        for called in (name, "" if caller is EDGE else stands_in):
            if results := [address for other, address in book.items() if other.partition("-")[0] == called]:
                return ",".join(results)
        variable = next(variable for variable, callee in caller.calls.items() if callee == name)
        if stands_in and caller is EDGE:
            # It knows who stands in.
            return self._given.get(variable, "")
        # Nobody listens there, not even another gateway on this machine.
        return self._given.get(variable) or f"127.0.0.1:{self._ports.any()}"
