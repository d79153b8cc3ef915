"""The router's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.common.rpc.target import Addresses, NamedAddresses
from services.common.settings import HOSTS, FactsSettings
from services.common.store import StoreSettings


class RouterSettings(StoreSettings, FactsSettings):
    """Settings of the router process."""

    listen: str = "127.0.0.1:8101"
    """Where it serves, `host:port`."""
    auth_address: Addresses = "127.0.0.1:8102"
    """The auth service; several parted by commas."""
    text_address: Addresses = "127.0.0.1:8103"
    """The text service."""
    inference_address: Addresses = "127.0.0.1:8104"
    """The inference service."""
    zone: str = ""
    """The zone in which it runs: of inference processes that have alike to do, one there is asked; empty: it does not
    matter."""
    inference_pools: NamedAddresses = ""
    """The inference services of pools that the catalogue's providers name, `images=host:8104,chat=host:8104`."""
    image_address: Addresses = "127.0.0.1:8108"
    """The image service (cloud providers' images); empty: this gateway runs none."""
    sessions: bool = True
    """Whether calls of the text service share one stream to each of its processes; else each is a gRPC call of its
    own, as it is where a text service does not know such streams."""
    byok: bool = False
    """Whether callers may bring a provider's key instead of one of this gateway's, where its row has `caller_keys`."""
    catalogue_editable: bool = False
    """Whether administrators may change the catalogue's file: it is one file, which all processes watch."""
    egress_allow: str = Field(default="", pattern=HOSTS)
    """Hosts beside public https ones that callers' image links may name, parted by commas (`127.0.0.1:9000`)."""
    state_dir: Path | None = None
    """Where settlements are journalled until auth has booked them; none: kept in memory only."""
    settle_every_s: float = Field(default=0.5, ge=0)
    """How far batches of settlements are apart while requests follow each other; with `state_dir` only."""
    large_fd: int | None = Field(default=None, ge=3)
    """An open file into which one byte is written when the first large request comes: whoever reads it starts the
    processes of large requests then; none: they run, or there are none."""
    policies: Path | None = None
    """The file of policies, which judge requests and answers (`docs/policies.md`); none: nothing judges them."""
