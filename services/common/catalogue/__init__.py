"""The catalogue: which providers and models there are, as one immutable snapshot read from one file."""

from services.common.catalogue.compact import CatalogueError
from services.common.catalogue.load import load
from services.common.catalogue.model import Catalogue, Load, Model, Prices, Provider, Retirement, Timeouts
from services.common.catalogue.watch import Watched

__all__ = [
    "Catalogue",
    "CatalogueError",
    "Load",
    "Model",
    "Prices",
    "Provider",
    "Retirement",
    "Timeouts",
    "Watched",
    "load",
]
