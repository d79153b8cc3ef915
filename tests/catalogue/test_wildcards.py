"""Wildcard rows: any id of a provider works, what is not known is said, and the operator's patterns hold."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from moa.common.v1 import usage_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import (
    Book,
    Catalogue,
    CatalogueError,
    Listed,
    ListedModel,
    Model,
    Prices,
    Provider,
    UnknownModel,
    load,
    worded,
)
from services.router.domain import retirement

FILE = """
providers:
  - {id: a-text, adapter: openai, makes: text, base_url: "http://a", prefixes: [a]}
  - {id: a-image, adapter: openai, makes: image, base_url: "http://a", prefixes: [a]}
  - {id: b-text, adapter: gemini, makes: text, base_url: "http://b", prefixes: [b, models]}
  - {id: away, adapter: openai, makes: text, base_url: "http://c", credentials: {api_key: NOT_SET}}
models:
  - {id: known-1, provider: a-text, upstream: known-one, aliases: [old-1], prices: {input: 1}, context_tokens: 1000}
  - {id: ended, provider: a-text, retirement: {date: 2020-01-01, successor: b-text/new-2}, fallback: [b-text/other]}
  - {id: "*", provider: a-text, deny: ["img-*", "*-secret*"], assume_price: {input: 2, output: 4}}
  - {id: "img-*", provider: a-image}
  - {id: "*", provider: b-text, allow: ["new-*", "other", "g*"], limits: {stop: 5}, fallback: [known-1]}
  - {id: "*", provider: away}
"""
LISTS = {
    "a-text": Listed(
        models={
            "both": ListedModel(id="both"),
            "known-one": ListedModel(id="known-one"),
            "mine": ListedModel(id="mine", created=5, context_tokens=9000, max_output_tokens=700),
            "img-3": ListedModel(id="img-3"),
            "vec": ListedModel(id="vec", makes="embedding"),
        }
    ),
    "b-text": Listed(models={"new-9": ListedModel(id="new-9", capabilities=frozenset({"tools"}))}),
}


def _loaded(path: Path, file: str = FILE) -> Catalogue:
    path.write_text(file)
    return load(path, {})


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return _loaded(tmp_path_factory.mktemp("wildcards") / "catalogue.yaml")


@pytest.mark.parametrize(
    ("name", "provider", "makes", "lists", "found"),
    [
        pytest.param("known-1", "", "text", False, "a-text/known-1", id="a row comes first"),
        pytest.param("old-1", "", "text", False, "a-text/known-1", id="and its alias"),
        pytest.param("a-text/zeta", "", "text", False, "a-text/zeta", id="its provider before it"),
        pytest.param("zeta", "a-text", "text", False, "a-text/zeta", id="its provider beside it"),
        pytest.param("a/zeta", "", "text", False, "a-text/zeta", id="a provider's prefix"),
        pytest.param("a/zeta", "a-text", "text", False, "a-text/zeta", id="its prefix, and the provider beside it"),
        pytest.param("z/zeta", "a-text", "text", False, "a-text/z/zeta", id="a slash that is the id's own"),
        pytest.param("a/img-7", "", "image", False, "a-image/img-7", id="a prefix of two providers, by what is asked"),
        pytest.param("models/new-7", "", "text", False, "b-text/new-7", id="Google's form"),
        pytest.param("b-text/known-1", "", "text", False, "", id="another provider's row is not meant"),
        pytest.param("mine-preview", "", "text", True, "a-text/mine", id="a preview that has ended"),
        pytest.param("vendor/mine-latest", "", "text", True, "a-text/mine", id="behind a vendor's name"),
        pytest.param("a/mine-2025-01-01", "", "text", True, "a-text/mine", id="a snapshot, its provider named"),
        pytest.param("known-one-latest", "", "text", True, "a-text/known-1", id="listed, and its row is meant"),
        pytest.param("new-9-preview", "", "text", True, "b-text/new-9", id="of whoever lists it"),
        pytest.param("new-9-preview", "", "text", False, "", id="not without a list"),
        pytest.param("img-3-preview", "", "image", True, "a-image/img-3-preview", id="of another provider's list: no"),
        pytest.param("zeta", "", "text", False, "a-text/zeta", id="the only one whose row covers it"),
        pytest.param(
            "img-7", "", "text", False, "a-image/img-7", id="what makes something else is found for its refusal"
        ),
        pytest.param("new-9", "", "text", False, "", id="one of two, of which neither's list is known"),
        pytest.param("new-9", "", "text", True, "b-text/new-9", id="whoever lists it"),
        pytest.param("both", "", "text", True, "a-text/both", id="listed, and the other's row does not cover it"),
        pytest.param("zeta", "", "text", True, "", id="nobody lists it"),
        pytest.param("a-text/zeta", "", "text", True, "a-text/zeta", id="not listed, but its provider is named"),
        pytest.param("away/zeta", "", "text", True, "away/zeta", id="a provider that is not configured, by name"),
        pytest.param("a-text/x-secret-y", "", "text", False, "", id="denied by the operator's pattern"),
        pytest.param("b-text/zeta", "", "text", False, "", id="not allowed by the operator's patterns"),
        pytest.param(
            "a-text/vec", "", "text", True, "", id="listed as something that the provider's row does not make"
        ),
        pytest.param("a-text/ft:zeta:org::1", "", "text", False, "a-text/ft:zeta:org::1", id="a fine-tuned one"),
        pytest.param("a-text/x/../../files", "", "text", False, "", id="a path that climbs"),
        pytest.param("a-text/x//y", "", "text", False, "", id="an empty step"),
        pytest.param("a-text/x?y=1", "", "text", False, "", id="a query"),
        pytest.param("a-text/x\n", "", "text", False, "", id="a line's end"),
        pytest.param("a-text/%2e%2e", "", "text", False, "", id="escapes"),
        pytest.param("a-text/" + "x" * 201, "", "text", False, "", id="too long"),
        pytest.param("a-text/", "", "text", False, "", id="nothing"),
        pytest.param("a-text/*", "", "text", False, "", id="the row itself is no model"),
        pytest.param("*", "", "text", False, "", id="nor is its pattern"),
    ],
)
def test_a_name_is_found(catalogue: Catalogue, name: str, provider: str, makes: str, lists: bool, found: str) -> None:
    """Rows first, then whoever lists it, then the only one that may have it; never a guess among several."""
    looked = catalogue.with_listed(LISTS) if lists else catalogue
    try:
        model = looked.find(name, provider=provider, makes=makes)
    except UnknownModel:
        assert not found
    else:
        assert model.full_id == found
        # The service that asks the provider finds the same model by what the router tells it.
        assert catalogue.find(model.id, provider=model.provider).full_id == found


def test_what_is_not_known_is_not_guessed(catalogue: Catalogue) -> None:
    """An id of which nothing is known has no length, no known ability and no price; it may be asked for everything."""
    model = catalogue.find("b-text/new-7")
    assert (model.context_tokens, model.max_output_tokens, model.price_list) == (0, 0, ())
    assert model.lacks_price
    assert model.known_capabilities == frozenset()
    assert {"vision", "tools", "json_schema", "logprobs", "reasoning"} <= model.capabilities
    assert not model.can("prefill")
    assert model.limits.stop == 5
    assert model.label == "*"


def test_a_listed_model_has_what_its_list_says(catalogue: Catalogue) -> None:
    """Lengths, age and abilities come from the provider's own list, and metrics may name it."""
    joined = catalogue.with_listed(LISTS)
    mine, new = joined.find("mine"), joined.find("new-9")
    assert (mine.context_tokens, mine.max_output_tokens, mine.created, mine.label) == (9000, 700, 5, "mine")
    assert new.known_capabilities == {"tools"}
    assert new.can("vision")


def test_a_price_is_assumed_where_the_row_says_so(catalogue: Catalogue) -> None:
    """`assume_price` is what an id costs whose price nobody knows, for the reservation and for the bill."""
    usage = usage_pb2.Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000)
    assert not catalogue.find("a-text/zeta").lacks_price
    assert catalogue.cost_on()(usage, "a-text", "zeta") == 6 * 10**9


def test_what_costs_nobody_knows_how_much_is_not_said_to_cost_nothing(catalogue: Catalogue) -> None:
    """The cost of an id without a known price is not known, of text and of images; a row without prices costs none."""
    usage = usage_pb2.Usage(prompt_tokens=1, images=1)
    drawing = GenerateImageRequest()
    assert catalogue.cost_on()(usage, "b-text", "new-7") is None
    assert catalogue.image_cost(drawing)(usage, "b-text", "new-7") is None
    assert catalogue.image_nano_usd("b-text", "new-7", drawing) is None
    free = Model(id="free", provider="p")
    assert (free.cost_on()(usage), free.image_cost(drawing)(usage)) == (0, 0)  # type: ignore[call-arg]


def test_a_successor_and_a_fallback_may_be_covered(catalogue: Catalogue) -> None:
    """Rows name ids that only a wildcard row covers, and a wildcard row has fallbacks of its own."""
    ended = catalogue.find("ended")
    assert ended.retirement is not None
    assert catalogue.find(ended.retirement.successor).full_id == "b-text/new-2"
    assert [model.full_id for model in catalogue.fallbacks(ended)] == ["b-text/other"]
    assert [model.full_id for model in catalogue.fallbacks(catalogue.find("b-text/new-7"))] == ["a-text/known-1"]


def test_a_list_holds_what_rows_cover_once(catalogue: Catalogue) -> None:
    """Discovered models stand behind the rows: not what a row names already, denied, or makes something else."""
    joined = catalogue.with_listed(LISTS)
    assert [model.full_id for model in joined.discovered] == ["a-text/both", "a-text/mine", "b-text/new-9"]
    assert joined.models == catalogue.models
    assert catalogue.discovered == ()


@pytest.mark.parametrize(
    ("name", "lists", "step"),
    [
        ("mime", True, "use mine"),
        ("new-9", False, "its provider is not known here; use a-text/new-9 or b-text/new-9"),
    ],
)
def test_a_refusal_names_what_may_be_meant(catalogue: Catalogue, name: str, lists: bool, step: str) -> None:
    """The nearest names include what providers list; of a name that two may have both are told."""
    looked = catalogue.with_listed(LISTS) if lists else catalogue
    with pytest.raises(UnknownModel) as refused:
        looked.find(name, makes="text")
    assert worded(refused.value, looked, lambda model: True, listed="").message == f"unknown model {name!r}; {step}"
    assert worded(refused.value, looked, lambda model: False, listed="see").message == f"unknown model {name!r}; see"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{id: "*", provider: a, upstream: x}', "model *: upstream: a wildcard row has none"),
        ('{id: "*", provider: a, aliases: [x]}', "model *: aliases: a wildcard row has none"),
        ("{id: x, provider: a, deny: [y]}", "model x: deny: only a wildcard row"),
        ("{id: x, provider: a, assume_price: {input: 1}}", "model x: assume_price: only a wildcard row"),
        ('{id: "*", provider: own}', "model *: a wildcard row belongs to a provider that is asked over the network"),
        ('{id: "x?*", provider: a}', "model x?*: id: "),
        ('{id: x, provider: a, fallback: ["a/*"]}', "model x: fallback: Expected `str` matching"),
        ("{id: x, provider: a, fallback: [a/y]}", "model a/x: fallback: there is no 'a/y'"),
        ("{id: x, provider: a, retirement: {date: 2020-01-01, successor: a/y}}", "there is no 'a/y'"),
    ],
)
def test_a_bad_row_is_refused(tmp_path: Path, row: str, fault: str) -> None:
    """A row that says what it cannot is named with its field when the file is read."""
    more = "" if '"*", provider: a,' in row else '\n  - {id: "z*", provider: a}'
    file = (
        'providers:\n  - {id: a, adapter: openai, makes: text, base_url: "http://a"}\n'
        f"  - {{id: own, adapter: inference, makes: text}}\nmodels:\n  - {row}{more}\n"
    )
    with pytest.raises(CatalogueError) as refused:
        _loaded(tmp_path / "catalogue.yaml", file)
    assert fault in str(refused.value)


def test_a_virtual_model_may_name_what_a_row_covers(tmp_path: Path) -> None:
    """Its targets may be ids that only a wildcard row covers, of a variant as well; denied ones are refused."""
    file = (
        'providers:\n  - {id: a, adapter: openai, makes: text, base_url: "http://a", variants: {eu: {base_url: "http://e"}}}'
        '\nmodels:\n  - {id: "*", provider: a, deny: [old]}'
        "\nroutes:\n  - {id: fast, targets: [{model: a/x}, {model: a@eu/x}]}\n"
    )
    catalogue = _loaded(tmp_path / "catalogue.yaml", file)
    found = catalogue.route(catalogue.find("fast"))
    assert found is not None
    assert [(model.full_id, model.label) for _, model in found[1]] == [("a/x", "x"), ("a@eu/x", "x")]
    with pytest.raises(CatalogueError, match="there is no 'a/old'"):
        _loaded(tmp_path / "catalogue.yaml", file.replace("a/x", "a/old"))


FACTS = b"""{"format": 1, "taken": "2026-11-29", "families": {"openai": {
  "kept": {"makes": "text", "context_tokens": 5000, "max_output_tokens": 600, "capabilities": ["vision", "prefill"],
           "lacks": ["reasoning"], "prices": [{"since": "1970-01-01", "input": 1000000000}]},
  "gone": {"retires": "2020-01-01", "successor": "kept"},
  "round": {"retires": "2020-01-01", "successor": "about"}, "about": {"retires": "2020-01-01", "successor": "round"},
  "away": {"retires": "2020-01-01", "successor": "img-1"}}}}"""


def _with_facts(*listed: ListedModel, row: Model | None = None) -> Catalogue:
    providers = [Provider(id=name, adapter="openai", makes="text", base_url="x", facts="openai") for name in ("a", "b")]
    rows = [
        row or Model(id="*", provider="a", deny=("img-*",), assume_price=Prices(input=9)),
        Model(id="*", provider="b"),
    ]
    catalogue = Catalogue(providers, rows, frozenset({"a"}), book=Book(FACTS))
    return catalogue.with_listed({"a": Listed(models={model.id: model for model in listed})}) if listed else catalogue


def test_kept_facts_join_what_rows_and_lists_say() -> None:
    """The row's word comes first, then the provider's list, then the kept facts, then what is assumed."""
    catalogue = _with_facts()
    kept, new = catalogue.find("kept"), catalogue.find("new")
    assert (kept.context_tokens, kept.max_output_tokens, kept.label) == (5000, 600, "kept")
    assert kept.known_capabilities == {"vision", "prefill"}
    assert kept.can("prefill")
    assert kept.can("tools")
    assert not kept.can("reasoning"), "known not to"
    million = usage_pb2.Usage(prompt_tokens=1_000_000)
    assert [model.cost_on()(million, "", "") for model in (kept, new)] == [10**9, 9 * 10**9]
    listed = _with_facts(ListedModel(id="kept", context_tokens=7000), ListedModel(id="mine", base="kept"))
    assert [listed.find(name).context_tokens for name in ("kept", "mine")] == [7000, 5000]
    own = _with_facts(
        row=Model(id="*", provider="a", context_tokens=10, capabilities=frozenset(), prices=Prices(input=2))
    )
    assert (own.find("kept").context_tokens, own.find("kept").cost_on()(million, "", "")) == (10, 2 * 10**9)


def test_kept_successors_answer_for_what_ended_unless_it_is_still_listed() -> None:
    """An id that is over is answered by the one that its owner names; one that its provider lists is there."""
    catalogue = _with_facts()
    found, ending = retirement.standing(catalogue, catalogue.find("gone"), retirement.today())
    assert (found.full_id, str(ending.date) if ending else "") == ("a/kept", "2020-01-01")
    listed = _with_facts(ListedModel(id="gone"))
    assert retirement.standing(listed, listed.find("gone"), retirement.today())[0].id == "gone"
    gone = _with_facts(ListedModel(id="kept"), ListedModel(id="gone-but-another"))
    assert retirement.standing(gone, gone.find("gone"), retirement.today())[0].id == "kept", "in no list, yet declared"
    assert retirement.standing(catalogue, catalogue.find("round"), retirement.today())[0].id in ("round", "about")
    assert catalogue.find("away").retirement is None, "its successor is none that the row covers"


def test_a_picture_of_unbounded_cost_has_no_price() -> None:
    """Tokens' prices alone do not say what an image costs at most: under a limit in dollars it is refused."""
    row = Model(id="*", provider="draws")
    tokens = {"since": "2026-01-01", "image_output": 1000}
    models = {"loose": {"prices": [tokens]}, "bounded": {"prices": [{**tokens, "images": [{"nano": 5}]}]}}
    book = Book(msgspec.json.encode({"format": 1, "taken": "2026-11-29", "families": {"openai": models}}))
    provider = Provider(id="draws", adapter="openai", makes="image", facts="openai", base_url="http://x")
    catalogue = Catalogue([provider], [row], frozenset({"draws"}), (), book)
    assert [catalogue.find(f"draws/{name}").lacks_price for name in models] == [True, False]


def test_an_embedding_model_that_ended_is_refused_though_its_owner_names_another() -> None:
    """Vectors of two models are not of one space; text and pictures are answered by the successor."""
    old = {"retires": "2026-01-01", "successor": "new"}
    models = {"old": old, "new": {}}
    book = Book(msgspec.json.encode({"format": 1, "taken": "2026-11-29", "families": {"openai": models}}))
    providers = [
        Provider(id=makes, adapter="openai", makes=makes, facts="openai", base_url="http://x")
        for makes in ("embedding", "text")
    ]
    rows = [Model(id="*", provider=provider.id) for provider in providers]
    catalogue = Catalogue(providers, rows, frozenset({"embedding", "text"}), (), book)
    ends = [catalogue.find(f"{provider.id}/old").retirement for provider in providers]
    assert [end and end.policy for end in ends] == ["gone", "alias"]


def test_the_nearest_of_thousands_is_found() -> None:
    """However many models are listed before it: those that begin like the name are compared first."""
    listed = [ListedModel(id=f"vendor.model-{number}") for number in range(1000)] + [ListedModel(id="kind-of-chat")]
    catalogue = _with_facts(*listed)
    with pytest.raises(UnknownModel) as refused:
        catalogue.find("kind-of-caht")
    assert worded(refused.value, catalogue, lambda model: True, listed="").message.endswith("; use kind-of-chat")
