"""Settings come from the environment, and bad ones end a process by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from services.common import low_priority, settings


class Example(settings.ServiceSettings):
    port: int = Field(default=0, ge=0, le=65535)
    pauses_s: tuple[float, ...] = (1, 2)
    folder: Path | None = None
    text: str = ""


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_SERVICE_TOKEN", "a-token-for-this-test")


def test_each_kind_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, folders, secrets and sequences; what is given in code wins, and the rest is passed over."""
    told = {"PORT": "8080", "PAUSES_S": "[0.5, 3]", "FOLDER": "/x", "TEXT": "[1]", "OTHER": "y"}
    for name, value in told.items():
        monkeypatch.setenv(f"MOA_{name}", value)
    found = settings.read(Example)
    assert (found.port, found.pauses_s, found.folder, found.text) == (8080, (0.5, 3.0), Path("/x"), "[1]")
    assert found.service_token == SecretStr("a-token-for-this-test")
    assert Example(service_token=SecretStr("x" * 16), port=1).port == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("PORT", ""), ("PAUSES_S", "[1,"), ("PAUSES_S", "soon"), ("SERVICE_TOKEN", "x")],
)
def test_a_bad_one_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """The process ends with the variable's name, and does not repeat the value."""
    monkeypatch.setenv(f"MOA_{name}", value)
    with pytest.raises(SystemExit) as ended:
        settings.read(Example)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bad setting MOA_{name}: ")


def test_authorities_that_are_none_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A bundle that is not there, or holds no certificate, ends the process: each provider would be one that cannot be
    reached, without a word why."""
    bundle = tmp_path / "ca.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    for content, why in ((None, "No such file or directory"), ("", "it holds no certificate (PEM)")):
        if content is not None:
            bundle.write_text(content)
        with pytest.raises(SystemExit):
            settings.read(Example)
        assert capsys.readouterr().err == f"bad setting SSL_CERT_FILE: {bundle}: {why}\n"
    bundle.write_text("# ours\n-----BEGIN CERTIFICATE-----\n")
    assert settings.read(Example)


def test_a_process_takes_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is told to yield does, before it serves; others keep the priority that they were started with."""
    lowered: list[int] = []
    monkeypatch.setattr(low_priority, "yield_to_others", lowered.append)
    settings.read(Example)
    assert lowered == []
    monkeypatch.setenv("MOA_YIELDS", "5")
    settings.read(Example)
    assert lowered == [5]


def test_they_do_not_change() -> None:
    """A process reads its settings once."""
    with pytest.raises(ValueError, match="frozen"):
        settings.read(Example).text = "z"


@pytest.mark.parametrize(
    "url",
    ["postgresql:/moa:SECRET@db/moa", "mysql://moa:SECRET@db/moa", "postgresql://moa:SEC@SECRET@db/moa", "SECRET"],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_SESSION_URL"])
def test_no_address_of_postgresql(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, url: str
) -> None:
    """What is none is refused in words, and its password is not told."""
    monkeypatch.setenv("MOA_DATABASE_URL", "postgresql://moa:SECRET@db/moa")
    monkeypatch.setenv(f"MOA_{name}", url)
    with pytest.raises(SystemExit):
        settings.read(settings.DatabaseUrls)
    said = capsys.readouterr().err
    assert f"bad setting MOA_{name}: " in said
    assert "postgresql://user:password@host:5432/database" in said
    assert "SECRET" not in said


@pytest.mark.parametrize(
    "url", ["postgresql://moa:a%40b@one,two:6432/moa?target_session_attrs=read-write", "host=/run/db dbname=moa", ""]
)
def test_addresses_of_postgresql(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Whatever libpq takes is taken; of the second one nothing too."""
    monkeypatch.setenv("MOA_DATABASE_URL", url or "postgresql:///moa")
    monkeypatch.setenv("MOA_DATABASE_SESSION_URL", url)
    assert settings.read(settings.DatabaseUrls).session_url == (url or "postgresql:///moa")
