"""Settings of messages are read and written by name, whatever kind they are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from moa.quota.v1.quota_pb2 import OPERATION_IMAGE, OPERATION_TEXT, Rule, Settlement
from moa.text.v1.text_pb2 import Sampling
from services.common import limits


def test_settings_are_fields_that_may_be_given_or_not() -> None:
    """Numbers with presence and lists are; maps, messages, and what always has a value are not."""
    assert limits.settings(Rule) == ("operations",)
    names = limits.settings(Sampling)
    assert {"temperature", "top_k", "seed"} <= set(names)
    assert not {"logit_bias", "logprobs", "top_logprobs"} & set(names)
    assert limits.camel_settings(Sampling)["top_k"] == "topK"


def test_a_list_of_words_is_read_and_written() -> None:
    """A word is its value's name without the enum's; a body takes these words, and no others."""
    rule = Rule(provider="*")
    assert dict(limits.given_settings(rule)) == {}
    limits.put(rule, "operations", ["task"])
    limits.put(rule, "operations", ["text", "image"])
    assert list(rule.operations) == [OPERATION_TEXT, OPERATION_IMAGE]
    assert dict(limits.given_settings(rule)) == {"operations": ["text", "image"]}
    with pytest.raises(ValueError, match="sing"):
        limits.put(rule, "operations", ["sing"])
    shape: Any = limits.shape(Rule, "operations")
    assert msgspec.convert(["text"], shape) == ["text"]
    with pytest.raises(msgspec.ValidationError, match="sing"):
        msgspec.convert(["sing"], shape)


def test_a_number_keeps_its_limits_and_whole_ones_no_fraction() -> None:
    """0 that was given is given."""
    sampling = Sampling()
    limits.put(sampling, "top_k", 3.7)
    limits.put(sampling, "temperature", 0)
    assert dict(limits.given_settings(sampling)) == {"temperature": 0.0, "top_k": 3}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(3.0, limits.shape(Sampling, "temperature"))


def test_a_message_of_settings_is_read_and_written_as_an_object() -> None:
    """Bodies take an object of its settings, in either case of names; what it lacks is not given."""
    assert "charged" in limits.settings(Settlement)
    settlement = Settlement()
    settlement.charged.images = 2
    limits.put(settlement, "charged", {"tokens": 7, "nano_usd": None})
    assert dict(limits.given_settings(settlement)) == {"charged": {"tokens": 7}}
    for camel, body in ((False, {"nano_usd": 5}), (True, {"nanoUsd": 5})):
        shape: Any = limits.shape(Settlement, "charged", camel=camel)
        assert shape is limits.shape(Settlement, "charged", camel=camel), "OpenAPI has one type of a name"
        limits.put(settlement, "charged", msgspec.convert(body, shape))
        assert dict(limits.given_settings(settlement)) == {"charged": {"nano_usd": 5}}
        for bad in ({"nano_USD": 5}, {**body, "cents": 1}, {next(iter(body)): "x"}, 7):
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(bad, shape)
    limits.put(settlement, "charged", {})
    assert dict(limits.given_settings(settlement)) == {"charged": {}}
    with pytest.raises(ValueError, match="cents"):
        limits.put(settlement, "charged", {"cents": 1})
