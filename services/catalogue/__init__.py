"""The catalogue: which providers and models there are, as one immutable snapshot read from one file."""

from services.catalogue._compact import CatalogueError
from services.catalogue._faults import option_fault
from services.catalogue._limits import Words
from services.catalogue._load import load, reload
from services.catalogue._model import Load, Model, Provider, Retirement, Timeouts
from services.catalogue._nearest import worded
from services.catalogue._prices import PICO_A_NANO, Cost, ImagePrice, Prices, rounded_up
from services.catalogue._route import Route, RouteTarget, When
from services.catalogue._sizes import fit
from services.catalogue._snapshot import Catalogue, UnknownModel
from services.catalogue._virtual import Targets
from services.catalogue._watch import Watched

__all__ = [
    "PICO_A_NANO",
    "Catalogue",
    "CatalogueError",
    "Cost",
    "ImagePrice",
    "Load",
    "Model",
    "Prices",
    "Provider",
    "Retirement",
    "Route",
    "RouteTarget",
    "Targets",
    "Timeouts",
    "UnknownModel",
    "Watched",
    "When",
    "Words",
    "fit",
    "load",
    "option_fault",
    "reload",
    "rounded_up",
    "worded",
]
