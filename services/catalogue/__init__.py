"""The catalogue: which providers and models there are, as one immutable snapshot read from one file."""

from services.catalogue._differences import Difference, differences
from services.catalogue._environment import Environment, storable_forms
from services.catalogue._error import CatalogueError
from services.catalogue._facts import (
    MOST_FACTS_BYTES,
    SHIPPED_FACTS,
    Book,
    Document,
    Facts,
    Source,
    checked_document,
    shipped_facts,
)
from services.catalogue._faults import option_fault
from services.catalogue._last_good import LastGood, last_good_of
from services.catalogue._limits import Words
from services.catalogue._listed import MOST_LISTED, Listed, ListedModel
from services.catalogue._load import checked, load, reload
from services.catalogue._model import Load, Model, Provider, Rates, Retirement, Timeouts, inference_service
from services.catalogue._nearest import worded
from services.catalogue._price import (
    ALWAYS,
    FEMTO_A_NANO,
    Cost,
    ImageAt,
    Price,
    Tier,
    TokenPrices,
    at_factor,
    ordered,
    price_at,
    rounded_up,
    today,
)
from services.catalogue._prices import ImagePrice, Prices, PriceTier, in_integers
from services.catalogue._refresh import Refresh, refresh_of
from services.catalogue._route import LONGEST_TAG_BYTES, Route, RouteTarget, When
from services.catalogue._sizes import fit
from services.catalogue._snapshot import Catalogue, UnknownModel
from services.catalogue._trial import tried
from services.catalogue._virtual import RouteTargets
from services.catalogue._watch import Watched
from services.catalogue._wildcards import is_name

__all__ = [
    "ALWAYS",
    "FEMTO_A_NANO",
    "LONGEST_TAG_BYTES",
    "MOST_FACTS_BYTES",
    "MOST_LISTED",
    "SHIPPED_FACTS",
    "Book",
    "Catalogue",
    "CatalogueError",
    "Cost",
    "Difference",
    "Document",
    "Environment",
    "Facts",
    "ImageAt",
    "ImagePrice",
    "LastGood",
    "Listed",
    "ListedModel",
    "Load",
    "Model",
    "Price",
    "PriceTier",
    "Prices",
    "Provider",
    "Rates",
    "Refresh",
    "Retirement",
    "Route",
    "RouteTarget",
    "RouteTargets",
    "Source",
    "Tier",
    "Timeouts",
    "TokenPrices",
    "UnknownModel",
    "Watched",
    "When",
    "Words",
    "at_factor",
    "checked",
    "checked_document",
    "differences",
    "fit",
    "in_integers",
    "inference_service",
    "is_name",
    "last_good_of",
    "load",
    "option_fault",
    "ordered",
    "price_at",
    "refresh_of",
    "reload",
    "rounded_up",
    "shipped_facts",
    "storable_forms",
    "today",
    "tried",
    "worded",
]
