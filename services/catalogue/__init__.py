"""The catalogue: which providers and models there are, as one immutable snapshot read from one file."""

from services.catalogue._compact import CatalogueError
from services.catalogue._limits import Words
from services.catalogue._load import load, reload
from services.catalogue._model import Catalogue, Load, Model, Prices, Provider, Retirement, Timeouts
from services.catalogue._watch import Watched

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
    "Words",
    "load",
    "reload",
]
