"""Links: absolute, signed, and ending by themselves."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr, ValidationError

from services.common.errors import PermissionDenied
from services.common.store import Links, StoreSettings, links_of, store_of
from services.common.store.folder import FolderStore
from services.common.store.s3 import S3Store

LINKS = Links("https://moa.example/base/", "secret-of-16-letters", ttl_s=60)
NAME = "acc_20260101_00ff.png"


def query(url: str) -> tuple[str, str]:
    found = parse_qs(urlsplit(url).query)
    return found["expires"][0], found["signature"][0]


def test_a_link_is_absolute_and_opens_until_it_expires() -> None:
    """A fresh link passes; at its expiry it is refused, with the reason."""
    url = LINKS.make(NAME, now_s=1000)
    assert url.startswith(f"https://moa.example/base/files/{NAME}?expires=1060&signature=")
    expires, signature = query(url)
    LINKS.check(NAME, expires=expires, signature=signature, now_s=1059)
    with pytest.raises(PermissionDenied, match="expired"):
        LINKS.check(NAME, expires=expires, signature=signature, now_s=1060)


def test_nothing_of_a_link_can_be_changed() -> None:
    """Another name, a later expiry, another signature or none, and another secret's link are refused."""
    expires, signature = query(LINKS.make(NAME, now_s=1000))
    attempts = [
        ("acc_20260101_00fe.png", expires, signature),
        (NAME, "9999999999", signature),
        (NAME, expires + " ", signature),
        (NAME, "", ""),
        (NAME, "soon", signature),
        (NAME, expires, signature[:-1]),
        (NAME, expires, "가" * 43),
    ]
    for name, at, given in attempts:
        with pytest.raises(PermissionDenied, match="not valid"):
            LINKS.check(name, expires=at, signature=given, now_s=1001)
    foreign = query(Links("https://moa.example/base", "another-secret-here", ttl_s=60).make(NAME, now_s=1000))
    with pytest.raises(PermissionDenied):
        LINKS.check(NAME, expires=foreign[0], signature=foreign[1], now_s=1001)


def test_own_links_are_known() -> None:
    """A link of this gateway gives its name; a lookalike host, scheme or path gives none."""
    assert LINKS.name_of(LINKS.make(NAME)) == NAME
    for url in (
        f"http://moa.example/base/files/{NAME}",
        f"https://moa.example.evil/base/files/{NAME}",
        f"https://user@moa.example/base/files/{NAME}",
        f"https://moa.example/files/{NAME}",
        "https://moa.example/base/files/..%2Fx",
        "https://moa.example/base/files/",
    ):
        assert LINKS.name_of(url) is None, url


def test_settings_choose_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket means S3, none a folder; links derive their secret from the service token unless one is given."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    token = SecretStr("a-service-token-x")
    assert isinstance(store_of(StoreSettings(service_token=token, store_dir=tmp_path)), FolderStore)
    assert isinstance(store_of(StoreSettings(service_token=token, store_bucket="b")), S3Store)
    one = links_of(StoreSettings(service_token=token)).make(NAME, now_s=1)
    same = links_of(StoreSettings(service_token=token)).make(NAME, now_s=1)
    other = links_of(StoreSettings(service_token=token, link_secret=SecretStr("x" * 16))).make(NAME, now_s=1)
    assert one == same != other
    for bad in ("moa.example", "ftp://moa.example", "https://moa.example/?x=1"):
        with pytest.raises(ValidationError):
            StoreSettings(service_token=token, public_url=bad)
