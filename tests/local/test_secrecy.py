"""Each process has the secrets that it needs, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy.local.secrecy import inherited, names_set
from deploy.local.stack import Stack
from deploy.local.topology import AUTH, BY_NAME, PROCESSES, Process
from services.catalogue import load
from services.common.settings import ServiceSettings, providers_environment

CATALOGUE = """\
providers:
- {id: openai-text, adapter: openai, makes: text, base_url: "http://x", credentials: {api_key: OPENAI_API_KEY}}
- {id: odd, adapter: openai, makes: text, base_url: "${ODD_PLACE}", credentials: {api_key: ODD_WORD}}
- {id: unset, adapter: openai, makes: text, base_url: "http://x", credentials: {api_key: NOBODYS_KEY}}
models: []
"""
SECRETS = {
    "OPENAI_API_KEY": {"text", "image"},
    "ODD_WORD": {"text", "image"},
    "AWS_SECRET_ACCESS_KEY": {"text", "image"},
    "GITHUB_TOKEN": {"text", "image"},
    "HF_TOKEN": {"text", "image", "inference"},
    "MOA_DATABASE_URL": {"auth", "tasks"},
    "PGPASSWORD": set(),
    "MOA_KEY_PEPPER": {"auth"},
    "MOA_SETUP_TOKEN": {"auth"},
    "MOA_NAVER_CLIENT_SECRET": {"desk"},
    "MOA_WEBHOOK_SECRET": {"tasks"},
    "MOA_LINK_SECRET": {"router", "desk", "tasks"},
    "MOA_TLS_KEY": {"edge"},
}
"""Each secret, and who has it."""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Yield a gateway that is not started, whose operator's environment holds every secret there is."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    for name in SECRETS:
        monkeypatch.setenv(name, f"secret of {name}")
    given = {"MOA_CATALOGUE": str(catalogue), "ODD_PLACE": "http://odd", "PLAIN": "1", "MOA_LOG_LEVEL": "error"}
    made = Stack(tmp_path / "home", environment=given, processes=[process.name for process in PROCESSES])
    made.plan.choose()
    yield made
    # The database is somebody else's, by the environment: nothing of this gateway was started.
    made.stop()


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_each_has_its_own_secrets(stack: Stack, process: Process) -> None:
    """The text service has no database, the router no provider's key, the edge nothing but its certificate's."""
    environment = stack.plan.environment(process.name, "postgresql://u:secret@/moa")
    has = {name for name in SECRETS if environment.get(name)}
    assert has == {name for name, owners in SECRETS.items() if (process.stands_in or process.name) in owners}
    told = " ".join(environment.values())
    assert [name for name in SECRETS if f"secret of {name}" in told and name not in has] == []
    assert environment["PLAIN"] == "1"


def test_who_asks_no_provider_knows_which_are_configured(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of what is set: the router lists the same providers as the service that has the credentials."""
    asks = stack.plan.environment("text", "")
    decides = stack.plan.environment("router", "")
    catalogue = Path(decides["MOA_CATALOGUE"])
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    config = ServiceSettings(service_token=SecretStr("x" * 16), variables_set=decides["MOA_VARIABLES_SET"])
    found = load(catalogue, providers_environment(config)).configured
    assert found == load(catalogue, asks).configured == {"openai-text", "odd"}


def test_servers_are_told_to_who_decides_which_there_are(tmp_path: Path) -> None:
    """Their addresses are no secret, though the catalogue may name the variable."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text("# MOA_SERVERS names more, KEY_OF_BOX is a secret")
    given = {"MOA_CATALOGUE": str(catalogue), "MOA_SERVERS": "http://gpu1", "KEY_OF_BOX": "s"}
    assert inherited(BY_NAME["router"], given).keys() == {"MOA_CATALOGUE", "MOA_SERVERS"}
    assert inherited(BY_NAME["text"], given) == given


def test_a_bucket_takes_its_credentials_along(tmp_path: Path) -> None:
    """With a bucket, those who keep objects have the cloud's credentials; without one they have none."""
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SESSION_TOKEN": "b"}
    for name in ("router", "tasks", "desk"):
        assert inherited(BY_NAME[name], given) == {}
        assert inherited(BY_NAME[name], {**given, "MOA_STORE_BUCKET": "x"}).keys() >= given.keys()
    assert inherited(AUTH, {**given, "MOA_STORE_BUCKET": "x"}).keys() == {"MOA_STORE_BUCKET"}


def test_names_are_told_without_values() -> None:
    """Nothing of a value, and nothing that is not set."""
    assert names_set({"A_KEY": "hush", "B_KEY": "", "lower": "x", "C_KEY_FILE": "/f"}) == "A_KEY,C_KEY_FILE"
