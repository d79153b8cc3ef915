"""What the desk process is told by its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from services.common.rpc.target import Addresses
from services.common.settings import HOSTS
from services.common.store import StoreSettings
from services.desk.domain import prompt


class DeskSettings(StoreSettings):
    """Settings of the desk service."""

    listen: str = "127.0.0.1:8107"
    """Where the task service reaches it."""
    router_address: Addresses = "127.0.0.1:8101"
    """The router, which makes the images."""
    vision_address: Addresses = "127.0.0.1:8104"
    """The inference service, which looks at images."""
    zone: str = ""
    """The zone in which it runs: of inference processes that have alike to do, one there is asked; empty: it does not
    matter."""
    egress_allow: str = Field(default="", pattern=HOSTS)
    """Hosts beside public https ones that images may come from, parted by commas."""

    desk_model: str = "moa-tiny-image"
    """The image model."""
    desk_lora: str = ""
    """The adapter that gives the style, by its catalogue name; empty: none."""
    desk_lora_scale: float = Field(default=1.0, ge=0, le=4)
    """Its weight."""
    desk_trigger: str = ""
    """Its trigger word."""
    desk_style: str = prompt.STYLE
    """Style words that every prompt gets."""
    desk_strength: float = Field(default=0.6, gt=0, le=1)
    """How far the original is left behind."""
    desk_max_side: int = Field(default=0, ge=0, le=4096)
    """Longer sides are scaled down to it; 0: what the catalogue says that the model was made for, else 1024."""

    naver_url: str = "https://openapi.naver.com"
    """The shopping search API."""
    naver_client_id: SecretStr = SecretStr("")
    """Its application's id; empty: no shopping."""
    naver_client_secret: SecretStr = SecretStr("")
    """Its application's secret."""
    naver_count: int = Field(default=10, ge=1, le=100)
    """Offers asked for; the three cheapest are shown."""
