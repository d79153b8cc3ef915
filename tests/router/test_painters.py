"""Which image model a request is for, and what of it is changed to what that model makes."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest, GenerateImageResponse
from services.catalogue import Catalogue, Model, Provider, Retirement
from services.common.errors import ModelNotFound, PermissionDenied, Unauthenticated, Unsupported
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.image import ImageCall
from tests import shipped
from tests.router.rig import KEY, OTHER_KEY, Played

PRO = shipped.catalogue().find("gemini-3-pro-image")


def call(**fields: Any) -> ImageCall:
    return ImageCall(GenerateImageRequest(prompt="x", **fields))


def test_a_size_that_is_not_made_is_named() -> None:
    """The nearest is asked for, and told with what whoever answers ignores."""
    asked = call(width=1792, height=1024)
    asked.check(PRO)
    assert asked.ignored(GenerateImageResponse()) == ["size=1376x768"]
    assert asked.request.aspect_ratio == "16:9"


def test_the_strict_are_refused_what_is_not_made() -> None:
    """Before anything is reserved, with the nearest that there is."""
    with pytest.raises(Unsupported, match="1376x768") as refused:
        call(width=1792, height=1024, strict=True).check(PRO)
    assert refused.value.param == "size"
    call(width=1376, height=768, strict=True).check(PRO)


def operations(*models: Model, configured: frozenset[str] = frozenset({"p"})) -> Operations:
    providers = [Provider(id=name, adapter="openai", makes="image", base_url="http://x") for name in ("p", "away")]
    catalogue = Catalogue(providers, models, configured)
    nobody: Any = None
    return Operations(catalogue=lambda: catalogue, admission=Played(), backends=nobody, inputs=nobody)


PLAIN = Model(id="plain", provider="p")
VARIES = Model(id="varies", provider="p", capabilities=frozenset({"variation"}))
USUAL = Model(id="usual", provider="away", capabilities=frozenset({"variation", "edit"}))
VARIATION = {"operation": image_pb2.OPERATION_VARIATION}


async def test_who_names_no_model_gets_one_that_can() -> None:
    """The dialect's own where it is configured and can; else the first that can do what is asked."""
    caller = Caller(key=KEY, request_id="r")
    models = (PLAIN, VARIES, USUAL)
    everywhere = operations(*models, configured=frozenset({"p", "away"}))
    assert await everywhere.usual(call(model="usual", **VARIATION), caller) == "usual"
    assert await operations(*models).usual(call(model="usual", **VARIATION), caller) == "p/varies"
    assert await operations(*models).usual(call(model="usual"), caller) == "p/plain"
    with pytest.raises(ModelNotFound, match="GET /v1/models lists"):
        await operations(PLAIN, USUAL).usual(call(model="usual", **VARIATION), caller)


async def test_who_names_no_model_is_told_of_no_retirement() -> None:
    """The successor of the dialect's model is asked for by its own name, with a caller's own key too."""
    ended = Retirement(date=date(2025, 1, 2), successor="plain")
    ending = Retirement(date=date(2999, 1, 2), successor="plain")
    old, usual = (Model(id=name, provider="p", retirement=end) for name, end in (("old", ended), ("usual", ending)))
    for caller in (Caller(key=KEY, request_id="r"), Caller(key="", request_id="r", own_key="AIza")):
        assert await operations(PLAIN, old).usual(call(model="old"), caller) == "p/plain"
        assert await operations(PLAIN, usual).usual(call(model="usual"), caller) == "usual"


async def test_a_model_is_found_for_known_callers_alone() -> None:
    """And among those that their keys may use."""
    with pytest.raises(Unauthenticated):
        await operations(PLAIN).usual(call(model="usual"), Caller(key="moa-nobody", request_id="r"))
    with pytest.raises(PermissionDenied):
        await operations(PLAIN).usual(call(model="usual"), Caller(key=OTHER_KEY, request_id="r"))
