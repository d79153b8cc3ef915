"""Virtual models and variants of providers in the catalogue: what is admitted, refused, listed and resolved."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from services.catalogue import Catalogue, CatalogueError, Watched, load

FILE = """
providers:
  - id: p
    adapter: openai
    makes: text
    base_url: "http://x"
    credentials: {api_key: P_KEY}
    options: {batch: 3}
    variants:
      eu: {base_url: "http://eu", options: {counts_tokens: true}}
      spare: {credentials: {api_key: P_SPARE}}
  - {id: q, adapter: openai, makes: text, base_url: "http://y"}
  - {id: i, adapter: openai, makes: image, base_url: "http://x"}
models:
  - {id: a, provider: p, aliases: [first], capabilities: [tools], context_tokens: 1000, prices: {input: 2}}
  - {id: a, provider: q, context_tokens: 4000, max_output_tokens: 10}
  - {id: b, provider: q, capabilities: [vision]}
  - {id: drawn, provider: i, credits: 2, prices: {image: 0.5}}
  - {id: dear, provider: i, credits: 3, prices: {image: 0.75}}
routes:
  - id: fast
    strategy: weighted
    targets:
      - {model: p/a, weight: 3}
      - {model: p@eu/a, weight: 2, when: {tags: [eu], max_prompt_tokens: 100}}
      - {model: q/a, canary: 0.1}
      - {model: b, shadow: 0.5, when: {needs: [image, tools], modalities: [text, image]}}
  - {id: outer, targets: [{model: fast}, {model: p@spare/a}]}
  - {id: picture, targets: [{model: drawn}, {model: dear}]}
"""
SECRETS = {"P_KEY": "k", "P_SPARE": "s"}


def written(folder: Path, text: str) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return load(written(tmp_path, FILE), SECRETS)


def test_a_virtual_model_is_found_and_listed_like_any_other(catalogue: Catalogue) -> None:
    """By its id, under a provider of its own for what its targets make; it can do what one of them can."""
    fast = catalogue.find("fast")
    assert fast.full_id == "virtual-text/fast"
    assert fast is catalogue.find("virtual-text/fast") is catalogue.find("fast", provider="virtual-text")
    assert [model.full_id for model in catalogue.models[-3:]] == [
        *("virtual-text/fast", "virtual-text/outer", "virtual-image/picture")
    ]
    assert fast.capabilities == {"tools", "vision"}
    assert (fast.context_tokens, fast.max_output_tokens) == (0, 0)
    assert catalogue.makes(catalogue.find("picture")) == "image"
    assert {"virtual-text", "virtual-image"} < catalogue.configured
    assert catalogue.provider("virtual-text").service == "router"


def test_its_targets_are_models_and_virtual_models_in_their_order(catalogue: Catalogue) -> None:
    """A plain model stands for itself alone."""
    fast, outer = catalogue.route(catalogue.find("fast")), catalogue.route(catalogue.find("outer"))
    assert fast is not None
    assert outer is not None
    assert [(target.weight, model.full_id) for target, model in fast[1]] == [
        *((3.0, "p/a"), (2.0, "p@eu/a"), (1.0, "q/a"), (1.0, "q/b"))
    ]
    assert [model.full_id for _, model in outer[1]] == ["virtual-text/fast", "p@spare/a"]
    assert catalogue.route(catalogue.find("p/a")) is None


def test_a_variant_is_its_provider_by_another_key_or_address(catalogue: Catalogue) -> None:
    """Its models are its provider's, at its provider's prices, named by it alone; secrets are variables."""
    eu, spare = catalogue.provider("p@eu"), catalogue.provider("p@spare")
    assert (eu.base_url, eu.credentials, eu.options) == ("http://eu", {"api_key": "P_KEY"}, _BOTH)
    assert (spare.base_url, spare.credentials, spare.options) == ("http://x", {"api_key": "P_SPARE"}, {"batch": 3})
    assert catalogue.find("a").full_id == "p/a"
    for found in (catalogue.find("p@eu/first"), catalogue.find("a", provider="p@eu")):
        assert found is catalogue.find("p@eu/a")
        assert (found.full_id, found.context_tokens) == ("p@eu/a", 1000)
    assert "p@eu/a" not in {model.full_id for model in catalogue.models}
    usage = usage_pb2.Usage(prompt_tokens=1_000_000)
    assert catalogue.cost_on()(usage, "p@eu", "a") == catalogue.cost_on()(usage, "p", "a") == 2 * 10**9


_BOTH = {"batch": 3, "counts_tokens": True}


def test_a_variant_without_its_secret_is_not_configured(tmp_path: Path) -> None:
    """As a provider; a virtual model is reachable while one of its targets is, shadows aside."""
    path = written(tmp_path, FILE)
    without_spare = load(path, {"P_KEY": "k"})
    assert without_spare.configured >= {"p", "p@eu"}
    assert "p@spare" not in without_spare.configured
    keyless = load(written(tmp_path, FILE.replace("{model: q/a, canary: 0.1}", "{model: p@spare/a}")), {})
    assert not keyless.is_reachable(keyless.find("fast"))
    assert without_spare.is_reachable(without_spare.find("fast"))


def test_a_virtual_model_as_a_task_costs_what_its_dearest_target_does(catalogue: Catalogue) -> None:
    """Credits and dollars are held before it is known which target answers."""
    request = image_service_pb2.GenerateImageRequest(prompt="x")
    assert catalogue.find("picture").credits == 3
    assert catalogue.image_nano_usd("virtual-image", "picture", request) == 750_000_000
    assert catalogue.image_nano_usd("i", "drawn", request) == 500_000_000


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("model: p/a, weight", "model: p/aa, weight", r"route fast: targets: number 1 \(p/aa\): model: there is no"),
        ("model: p/a, weight", "model: p/aa, weight", r"did you mean 'p/a'\?"),
        ("model: p/a, weight", "model: a, weight", "model: it may be p/a or q/a"),
        ("model: p@eu/a", "model: p@ei/a", "provider p has no variant 'ei'"),
        ("strategy: weighted", "strategy: weigthed", "route fast: strategy: .*did you mean 'weighted'"),
        ("weight: 3", "wieght: 3", "route fast: targets: .*did you mean 'weight'"),
        ("weight: 3", "weight: -3", "route fast: targets.weight"),
        ("tags: [eu]", "tag: [eu]", "did you mean 'tags'"),
        ("tags: [eu]", "tags: ['eu, gdpr']", "when.tags: no request has the tag 'eu, gdpr': commas part tags"),
        ("tags: [eu]", "without_tags: [' eu']", "when.without_tags: no request has the tag ' eu'"),
        ("tags: [eu]", f"tags: [{'é' * 33}]", "when.tags: no request has a tag of more than 64 bytes"),
        ("tags: [eu]", "tags: [eu], without_tags: [us, eu]", "when.without_tags: no request has one of its tags and"),
        ("needs: [image, tools]", "needs: [image, tool]", "when.needs: nobody knows 'tool'; did you mean 'tools'"),
        ("max_prompt_tokens: 100", "max_prompt_tokens: 1, min_prompt_tokens: 2", "less than min_prompt_tokens"),
        ("canary: 0.1", "canary: 1.1", "route fast: targets.canary"),
        ("canary: 0.1", "canary: 0.1, shadow: 0.1", "either a canary or a shadow"),
        ("{model: fast}", "{model: fast, shadow: 0.1}", "it has to be a model, not a virtual one"),
        ("{model: fast}, {model: p@spare/a}", "{model: p/a, shadow: 0.1}", "none but canaries and shadows"),
        ("{model: fast}", "{model: outer}", r"route outer: targets: it comes round to itself \(outer > outer\)"),
        ("model: b, shadow: 0.5", "model: outer", r"comes round to itself \(fast > outer > fast\)"),
        ("model: drawn}, {", "model: b}, {", "all have to make the same, and q/b makes text, i/dear makes image"),
        ("id: outer", "id: fast", "route fast stands twice"),
        ("id: outer", "id: first", "route first: id: a model has this name"),
        ("id: q,", "id: virtual-q,", "provider virtual-q: ids that begin with virtual-"),
        ("routes:", "route:", "did you mean 'routes'"),
        ("id: q,", "id: p@eu,", "provider p: variants: a provider has the id p@eu"),
        ("credentials: {api_key: P_SPARE}", "credential: {}", "provider p: variants.*did you mean 'credentials'"),
    ],
)
def test_a_bad_declaration_is_refused_with_its_place(tmp_path: Path, old: str, new: str, why: str) -> None:
    """The row, the field, and the nearest known word where one is near."""
    assert old in FILE
    text = FILE.replace(old, new)
    if old == "id: q,":
        other = new.removeprefix("id: ").rstrip(",")
        text = text.replace("provider: q", f"provider: {other}").replace("q/a", f"{other}/a")
    with pytest.raises(CatalogueError, match=why):
        load(written(tmp_path, text), SECRETS)


async def test_an_edit_is_taken_up_or_refused_as_a_whole(tmp_path: Path) -> None:
    """A running gateway has the new targets, and goes on with what it has where they are wrong."""
    path = written(tmp_path, FILE)
    watched = Watched(path, SECRETS)
    watching = asyncio.create_task(watched.watch(every_s=0.01))

    def targets() -> list[str]:
        found = watched.now.route(watched.now.find("outer"))
        assert found is not None
        return [model.full_id for _, model in found[1]]

    async with asyncio.timeout(20):
        path.write_text(FILE.replace("{model: fast}", "{model: nobody}"))
        while not watched.refused:
            await asyncio.sleep(0.01)
        assert targets() == ["virtual-text/fast", "p@spare/a"]
        before = watched.now
        path.write_text(FILE.replace("{model: fast}", "{model: q/a}"))
        while watched.now is before:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert targets() == ["q/a", "p@spare/a"]


def test_the_documented_examples_are_taken(tmp_path: Path) -> None:
    """What docs/routing.md shows of virtual models may be copied."""
    fenced = [block.partition("```")[0] for block in Path("docs/routing.md").read_text().split("```yaml\n")[1:]]
    blocks = [block for block in fenced if "targets:" in block]
    assert len(blocks) >= 6
    for block in blocks:
        names = sorted({name for name in re.findall(r"model: ([\w./@-]+)", block) if "@" not in name})
        rows = [name if "/" in name else f"p/{name}" for name in names]
        declared = re.findall(r"- id: ([\w-]+)\n +adapter", block)
        providers = {row.partition("/")[0] for row in rows} - {*declared}
        head, _, tail = (block if "routes:" in block else f"routes:\n{block}").partition("routes:")
        lines = [
            head.rstrip() or "providers:",
            *(f"  - {{id: {one}, adapter: openai, makes: text, base_url: x}}" for one in sorted(providers)),
            "models:",
            *(f"  - {{id: {row.partition('/')[2]}, provider: {row.partition('/')[0]}}}" for row in rows),
            f"routes:{tail}",
        ]
        assert load(written(tmp_path, "\n".join(lines)), {}).models[-1].provider == "virtual-text"


def test_models_of_ones_own_have_no_variants(tmp_path: Path) -> None:
    """They run on this machine, whatever key stands beside them."""
    rows = "providers: [{id: own, adapter: inference, makes: text, variants: {eu: {}}}]\nmodels: []\n"
    with pytest.raises(CatalogueError, match="provider own: variants: its models run here"):
        load(written(tmp_path, rows), {})


def test_virtual_models_that_multiply_are_refused_quickly(tmp_path: Path) -> None:
    """A few rows that name each other many times would be more targets than can be counted."""
    rows = ["  - {id: r0, targets: [{model: p/a}, {model: p/a}]}"]
    for number in range(1, 12):
        targets = ", ".join([f"{{model: r{number - 1}}}"] * 60)
        rows.append(f"  - {{id: r{number}, targets: [{targets}]}}")
    with pytest.raises(CatalogueError, match="route r1: targets: they come to more than 64"):
        load(written(tmp_path, FILE + "\n".join(rows) + "\n"), SECRETS)
