"""What tests of several parts share: the real PostgreSQL."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from deploy.local.database import Database
from services.common.rpc import call as calls
from tests import forking, skips
from tests.suite import imports, plugin

# The tests start some three hundred processes of ours: each would compile all of its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# And each worker, at each run, would rewrite the asserts of all tests: five seconds of CPU.
sys.dont_write_bytecode = False
# Nothing is downloaded: where the catalogue's real weights are asked for, the fallback answers.
os.environ["MOA_FETCH"] = "never"
# Workers and what they start share few cores: two threads of one operation would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# An example's time says how busy the machine is; and with CI set, hypothesis would try the same examples for ever.
hypothesis.settings.register_profile("moa", deadline=None, derandomize=False)
hypothesis.settings.load_profile("moa")


def pytest_addoption(parser: pytest.Parser) -> None:
    plugin.add_options(parser)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return plugin.workers()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(plugin.Suite(config), "moa-suite")
    forking.enabled = sys.platform == "linux" and not config.getoption("--exec")
    forking.share()  # workers inherit it
    if config.getoption("tx", None):
        imports.tell(config.invocation_params.args)
    if config.getoption("tx", None) and (forked := forking.worker()):
        config.option.tx = [forked if spec == "popen" else spec for spec in config.option.tx]
    # structlog's own choice draws a traceback in colours, which takes half a second each.
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )
    skips.pytest_configure(config)


@pytest.fixture(autouse=True)
def _call() -> None:
    """Begin a call of no size and nobody's for each test: one that a test begins in its thread outlives the test."""
    calls.begin("test", "test")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Run one PostgreSQL for the whole session."""
    server = Database(Path(tmp_path_factory.mktemp("database")) / "data", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database_url(database: Database, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty database that this test module alone uses."""
    return database.create("t_" + re.sub(r"\W", "_", request.module.__name__)[-50:].lower())
