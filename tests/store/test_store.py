"""Both stores keep one promise: the folder, and S3 by a real client against moto's server."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from services.auth.adapters.export_bucket import ExportBucket
from services.common.errors import NotFound, StorageFailed
from services.common.store import Store, StoreSettings, identity_of, object_name, owner_of
from services.common.store.failing import FAILED
from services.common.store.folder import FolderStore
from services.common.store.model import CHUNK_BYTES
from services.common.store.names import is_name, owns
from services.common.store.s3 import PART_BYTES, S3Store
from tests.authority import Authority
from tests.counters import count_of


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str, credentials: None) -> Iterator[S3Store]:
    """A store in a bucket that all tests share: botocore reads its descriptions for a third of a second at each."""
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="moa")
    client.close()
    made = S3Store("moa", endpoint=s3_endpoint, region="us-east-1")
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made: Store = FolderStore(tmp_path / "objects") if request.param == "folder" else request.getfixturevalue("bucket")
    return made


async def read(store: Store, name: str, *, start: int = 0, stop: int | None = None) -> bytes:
    async with store.open(name, start=start, stop=stop) as opened:
        return b"".join([chunk async for chunk in opened.chunks])


async def pieces(size: int, count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 251]) * size


async def test_what_was_put_is_read(store: Store) -> None:
    """Bytes, media type and notes come back; the size is known without reading."""
    name = object_name("acc", "png")
    put = await store.put(name, b"\x89PNG data", content_type="image/png", metadata={"Task": "t1"})
    info = await store.head(name)
    assert info == put
    assert (info.size_bytes, info.content_type, dict(info.metadata)) == (9, "image/png", {"task": "t1"})
    assert await read(store, name) == b"\x89PNG data"


RANGES = [(0, 5, b"01234"), (3, None, b"3456789"), (9, 99, b"9"), (10, None, b""), (4, 4, b""), (50, 60, b"")]


@pytest.mark.parametrize(("start", "stop", "expected"), RANGES)
async def test_a_range_is_read(store: Store, start: int, stop: int | None, expected: bytes) -> None:
    """A range gives exactly its bytes; bounds past the end are brought back to it."""
    name = object_name("acc", "bin")
    await store.put(name, b"0123456789", content_type="application/octet-stream")
    assert await read(store, name, start=start, stop=stop) == expected


async def test_a_large_iterator_is_stored_in_parts_and_read_in_chunks(store: Store) -> None:
    """Three parts and a bit arrive whole, through memory that holds a few parts at most."""
    name = object_name("acc", "bin")
    size, count = 1024 * 1024, 26
    tracemalloc.start()
    info = await store.put(name, pieces(size, count), content_type="application/octet-stream")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert info.size_bytes == size * count
    # moto keeps what it was sent in this very process, so only the folder's peak is the store's alone.
    if isinstance(store, FolderStore):
        assert peak < 2 * PART_BYTES
    seen = 0
    async with store.open(name) as opened:
        async for chunk in opened.chunks:
            assert len(chunk) <= CHUNK_BYTES
            assert chunk[0] == (seen // size) % 251
            seen += len(chunk)
    assert seen == size * count


async def test_an_upload_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """What the iterator raises comes through, and no object, whole or half, is there."""

    async def breaks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * (2 * 1024 * 1024)
        raise ConnectionError("the sender left")

    name = object_name("acc", "bin")
    with pytest.raises(ConnectionError):
        await store.put(name, breaks(), content_type="application/octet-stream")
    with pytest.raises(NotFound):
        await store.head(name)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_an_object_can_be_replaced_and_removed(store: Store) -> None:
    """The later content counts; removing twice is fine; then it is not there."""
    name = object_name("acc", "txt")
    await store.put(name, b"one", content_type="text/plain")
    await store.put(name, b"other", content_type="text/plain")
    assert await read(store, name) == b"other"
    await store.delete(name)
    await store.delete(name)
    with pytest.raises(NotFound):
        await read(store, name)


ODD = ["", ".", "..", "../etc/passwd", "a/b", "a\\b", ".notes", "a..b", "a\0b", "a b", "ä.png", "a\n", "x" * 300, "-a"]


@pytest.mark.parametrize("name", ODD)
async def test_odd_names_name_nothing(store: Store, name: str) -> None:
    """A name that could leave the folder, or that no object can have, is refused before any access."""
    for attempt in (store.head(name), read(store, name), store.delete(name)):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(ValueError, match="name"):
        await store.put(name, b"x", content_type="text/plain")


async def test_many_at_once_do_not_mix(store: Store) -> None:
    """Twenty objects written and read together each keep their own content."""
    names = [object_name("acc", "bin") for _ in range(20)]

    async def one(number: int, name: str) -> bool:
        content = bytes([number]) * 300_000
        await store.put(name, content, content_type="application/octet-stream")
        return await read(store, name) == content

    assert all(await asyncio.gather(*(one(n, name) for n, name in enumerate(names))))


async def test_a_store_that_fails_says_so(tmp_path: Path, s3_endpoint: str, credentials: None) -> None:
    """A folder that cannot be made and a bucket that is not there are StorageFailed, with nothing of the inside;
    metrics count why."""
    (tmp_path / "file").write_bytes(b"")
    stores: list[Store] = [
        FolderStore(tmp_path / "file" / "objects"),
        S3Store("no-such-bucket", endpoint=s3_endpoint, region="us-east-1"),
    ]
    for store, why in zip(stores, ("Not a directory", "NoSuchBucket"), strict=True):
        before = count_of(FAILED.labels(why))
        with pytest.raises(StorageFailed) as caught:
            await store.put("a.png", b"x", content_type="image/png")
        assert str(caught.value) == "the object store failed"
        assert count_of(FAILED.labels(why)) == before + 1
        await store.aclose()


def test_names_are_unguessable_and_tell_their_owner() -> None:
    """A name carries its account and at least 128 random bits, and any account's id makes a legal one."""
    names = {object_name("acc-1", "png") for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert is_name(name)
        assert owner_of(name) == "acc-1"
        assert owns("acc-1", name)
        assert not owns("acc-2", name)
        assert len(bytes.fromhex(name.rsplit("_", 1)[1].removesuffix(".png"))) == 16
    assert is_name(object_name("../weird_id/", "png"))
    assert owns("../weird_id/", object_name("../weird_id/", "png"))
    assert not owns("", object_name("", "png"))
    with pytest.raises(ValueError, match="extension"):
        object_name("a", "../png")


async def test_exports_reach_a_bucket_by_a_credential_of_their_own(s3_endpoint: str, bucket: S3Store) -> None:
    """Under names with folders, again under the same name; a bucket that is not there fails as storage does."""
    given: Any = {"endpoint": s3_endpoint, "region": "us-east-1", "credential": ("writer", "secret")}
    exports, missing = ExportBucket("moa", **given), ExportBucket("nowhere", **given)
    for data in (b"one", b"two"):
        await exports.put("requests/2026/11/29/23/1.jsonl.gz", data, content_type="application/gzip")
    with pytest.raises(StorageFailed):
        await missing.put("x", b"", content_type="application/gzip")
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    found = client.get_object(Bucket="moa", Key="requests/2026/11/29/23/1.jsonl.gz")
    assert (found["Body"].read(), found["ContentType"]) == (b"two", "application/gzip")
    for one in (exports, missing, client):
        one.close()


async def test_a_server_inside_is_believed_by_its_authority(
    credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SSL_CERT_FILE` names whom S3 clients believe, as it does for all else that is asked; not their own list."""
    authority = Authority()
    folder = authority.certify(tmp_path / "server", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    async def nothing_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(nothing_there, "127.0.0.1", 0, ssl=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.crt"))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)  # it goes before
    store = S3Store("moa", endpoint=f"https://localhost:{server.sockets[0].getsockname()[1]}", region="us-east-1")
    with pytest.raises(NotFound):
        await store.head(object_name("a", "png"))
    await store.aclose()
    server.close()
    await server.wait_closed()


def test_a_folder_is_known_again(tmp_path: Path) -> None:
    """Who sees the same folder has the same store; another folder is another, and a bucket is known by its name."""

    def identity(folder: str, bucket: str = "") -> str:
        return identity_of(
            StoreSettings(store_dir=tmp_path / folder, store_bucket=bucket, service_token=SecretStr("t" * 32))
        )

    assert identity("one") == identity("one") != identity("two")
    assert identity("one", "pictures") == identity("two", "pictures") != identity("one", "others")
    (tmp_path / "file").touch()
    assert identity("file/within") == ""
