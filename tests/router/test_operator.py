"""What the operator is shown of providers: what routers saw, how they are configured, and to whom it is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moa.common.v1.rates_pb2 import UpstreamRates
from moa.operator.v1 import operator_store_service_pb2 as store_pb
from moa.provider.v1 import provider_state_service_pb2 as states_pb
from moa.router.v1 import operator_service_pb2 as pb
from services.catalogue import Catalogue, Model, Provider, Route, RouteTarget
from services.common.errors import Conflict, InvalidField, NotFound, PermissionDenied
from services.router.adapters.catalogue_file import CatalogueFile, etag_of
from services.router.catalogue_editing import CatalogueEditing
from services.router.operator import OperatorServicer
from services.router.traffic import BOUNDS_S, SLOT_S, Traffic, quantile_s

CATALOGUE = Catalogue(
    [
        Provider(
            id="p", adapter="openai", makes="text", base_url="https://host.example/v1", credentials={"api_key": "P_KEY"}
        ),
        Provider(id="q", adapter="openai", makes="text", base_url="http://q", credentials={"api_key": "Q_KEY"}),
        Provider(id="own", adapter="inference", makes="text"),
        Provider(id="i", adapter="openai", makes="image", base_url="http://i"),
    ],
    [Model(id="m", provider="p"), Model(id="n", provider="p"), Model(id="w-*", provider="p")],
    frozenset({"p", "own"}),
    [Route(id="best", strategy="weighted", targets=(RouteTarget(model="p/m", weight=3), RouteTarget(model="p/n")))],
)
CONTEXT: Any = SimpleNamespace(invocation_metadata=lambda: (("x-api-key", "k"),), time_remaining=lambda: None)


class Clock:
    def __init__(self) -> None:
        self.now = 6000.0

    def __call__(self) -> float:
        return self.now


def slots_of(report: store_pb.ReportTrafficRequest | None) -> dict[tuple[int, str, str, str], tuple[int, int, int]]:
    assert report is not None
    return {
        (slot.at, slot.route, slot.provider, slot.model): (slot.requests, slot.errors, slot.fallbacks)
        for slot in report.slots
    }


def test_a_slot_is_reported_whole_and_only_when_it_changed() -> None:
    """So that what is told twice counts once, and an idle router tells nothing. What did not arrive is told again, and
    a slot that is over and was told is forgotten."""
    clock = Clock()
    traffic = Traffic(clock)
    assert traffic.report("h") is None
    traffic.began("", "p", "m", 0.2)
    traffic.failed("best", "p", "m")
    first = traffic.report("h")
    assert slots_of(first) == {(6000, "", "p", "m"): (1, 0, 0), (6000, "best", "p", "m"): (0, 1, 0)}
    assert traffic.report("h") is None
    traffic.began("", "p", "m", 100.0)
    assert first is not None
    traffic.unsent(first)
    again = traffic.report("h")
    assert slots_of(again) == {(6000, "", "p", "m"): (2, 0, 0), (6000, "best", "p", "m"): (0, 1, 0)}
    (slot,) = [slot for slot in again.slots if not slot.route] if again else []
    assert [slot.first_events[BOUNDS_S.index(0.25)], slot.first_events[-1], sum(slot.first_events)] == [1, 1, 2]
    clock.now += SLOT_S
    traffic.fell_back("best", "p", "m")
    assert slots_of(traffic.report("h")) == {(6600, "best", "p", "m"): (0, 0, 1)}
    assert again is not None
    traffic.unsent(again)
    assert slots_of(traffic.report("h")) == {}


def test_breakers_and_limits_are_told_as_they_are() -> None:
    """Each report has all that rest and what providers said of late; a closed breaker is not in the next."""
    clock = Clock()
    traffic = Traffic(clock)
    traffic.opened("p", "m", 20.0)
    traffic.learned("p", "m", UpstreamRates(requests_per_minute=10, requests_left=3))
    report = traffic.report("h")
    assert report is not None
    assert [(breaker.model, breaker.until.seconds) for breaker in report.breakers] == [("m", 6020)]
    assert [(each.rates.requests_left, each.at.seconds) for each in report.rates] == [(3, 6000)]
    clock.now += 601
    traffic.closed("p", "m")
    report = traffic.report("h")
    assert report is not None
    assert (len(report.breakers), len(report.rates)) == (0, 0)


def test_names_of_callers_do_not_fill_the_memory() -> None:
    """Beyond thousands of targets new ones are not noted until those are told."""
    traffic = Traffic(Clock())
    for number in range(10_000):
        traffic.began("", "p", str(number), 0.1)
    report = traffic.report("h")
    assert report is not None
    assert len(report.slots) == 4000


@pytest.mark.parametrize(
    ("counts", "part", "expected"),
    [
        ([], 0.5, None),
        ([0] * 14, 0.5, None),
        ([0, 0, 10], 0.5, 0.0175),
        ([0, 0, 1, 1], 0.5, 0.025),
        ([0, 0, 1, 1], 0.95, 0.0475),
        ([0] * 13 + [3], 0.5, 60.0),
    ],
)
def test_a_quantile_is_guessed_within_its_bucket(counts: list[int], part: float, expected: float | None) -> None:
    """Evenly between its bounds; beyond the last bound, that bound is told."""
    assert quantile_s(counts, part) == (None if expected is None else pytest.approx(expected))


class Store:
    """Plays auth."""

    def __init__(self) -> None:
        self.is_admin = True
        self.asked: list[tuple[str, bool]] = []
        self.seconds = 0
        self.audited: list[tuple[str, str, tuple[str, ...]]] = []

    async def authorize(self, credential: str, *, changes: bool) -> str:
        self.asked.append((credential, changes))
        if not self.is_admin:
            raise PermissionDenied("administrators only")
        return "acc_1"

    async def audit(self, actor: str, act: str, *details: str) -> None:
        self.audited.append((actor, act, details))

    async def stored_keys(self) -> store_pb.ListProviderKeysResponse:
        keys = [
            store_pb.StoredProviderKey(variable="Q_KEY", last_four="1234", set_by="acc_1", unreadable=True),
            store_pb.StoredProviderKey(variable="OTHER_KEY"),
        ]
        return store_pb.ListProviderKeysResponse(keys=keys)

    async def traffic(self, seconds: int) -> store_pb.ReadTrafficResponse:
        self.seconds = seconds
        events = [0] * 14
        events[5] = 10
        return store_pb.ReadTrafficResponse(
            slots=[
                store_pb.TrafficSlot(provider="p", model="m", requests=10, errors=1, first_events=events),
                store_pb.TrafficSlot(provider="p", model="n", route="best", requests=2, fallbacks=1),
                store_pb.TrafficSlot(provider="q", model="before", route="best", requests=1),
            ],
            breakers=[store_pb.OpenBreaker(provider="p", model="m", routers=2)],
            rates=[store_pb.LearnedRates(provider="p", model="m", rates=UpstreamRates(tokens_left=9))],
        )


class States:
    """Plays the services that ask providers; the image service is away."""

    def __init__(self) -> None:
        self.tested: list[tuple[str, str]] = []

    async def list(self) -> dict[str, states_pb.ListProviderStatesResponse]:
        states = [
            states_pb.ProviderState(provider="p", configured=True, key_source=states_pb.KEY_SOURCE_ENVIRONMENT),
            states_pb.ProviderState(provider="q", why="needs Q_KEY"),
        ]
        return {"text": states_pb.ListProviderStatesResponse(providers=states)}

    async def test(self, service: str, provider: str) -> states_pb.TestProviderResponse:
        self.tested.append((service, provider))
        return states_pb.TestProviderResponse(outcome=states_pb.TEST_OUTCOME_FAILED, detail="no", milliseconds=7)


def servicer_of(store: Any, states: Any, *, editing: Any = None, engines: Any = None) -> OperatorServicer:
    return OperatorServicer(
        catalogue=lambda: CATALOGUE,
        store=store,
        states=states,
        engines=engines,
        editing=editing,
        refused=lambda: "a fault of the router's",
    )


async def test_providers_are_described() -> None:
    """Of each: whether it is configured and why not, where its key is from, what is stored, what routers saw of it."""
    store, states = Store(), States()
    servicer = servicer_of(store, states)
    answer = await servicer.DescribeProviders(pb.DescribeProvidersRequest(span=pb.SPAN_DAY), CONTEXT)
    assert (store.asked, store.seconds) == ([("k", False)], 86_400)
    p, q, own, image = answer.providers
    assert (p.configured, p.why, p.host, p.models) == (True, "", "host.example", 2)
    assert p.key_source == states_pb.KEY_SOURCE_ENVIRONMENT
    assert (p.traffic.requests, p.traffic.errors, p.traffic.fallbacks) == (12, 1, 1)
    assert (p.traffic.first_token_p50_ms, p.traffic.first_token_p95_ms) == (175.0, 242.5)
    assert [(each.model, each.routers) for each in p.resting] == [("m", 2)]
    assert [each.rates.tokens_left for each in p.limits] == [9]
    assert [(each.name, each.variable) for form in p.forms for each in form.credentials] == [("api_key", "P_KEY")]
    assert (list(p.stored_keys), q.configured, q.why) == ([], False, "needs Q_KEY")
    assert ([key.last_four for key in q.stored_keys], q.stored_keys_unreadable) == (["1234"], True)
    assert not q.traffic.HasField("first_token_p50_ms")
    assert (own.configured, own.host, list(own.forms)) == (True, "", [])
    assert (image.configured, image.why) == (False, "the image service does not answer")


async def test_a_provider_is_tested_by_the_service_that_asks_it() -> None:
    """That takes an administrator who may change something; one of one's own machines is refused, with what to ask."""
    store, states = Store(), States()
    servicer = servicer_of(store, states)
    answer = await servicer.TestProvider(pb.TestProviderRequest(provider_id="i"), CONTEXT)
    assert (answer.outcome, answer.detail, answer.milliseconds) == (states_pb.TEST_OUTCOME_FAILED, "no", 7)
    assert (states.tested, store.asked) == ([("image", "i")], [("k", True)])
    with pytest.raises(InvalidField, match="GET /admin/inference"):
        await servicer.TestProvider(pb.TestProviderRequest(provider_id="own"), CONTEXT)
    with pytest.raises(NotFound, match="GET /admin/providers"):
        await servicer.TestProvider(pb.TestProviderRequest(provider_id="nobody"), CONTEXT)


async def test_nobody_else_is_told() -> None:
    """What is not for an administrator's eyes alone would be prices, hosts and troubles of the operator."""
    store, states = Store(), States()
    store.is_admin = False
    servicer = servicer_of(store, states)
    with pytest.raises(PermissionDenied):
        await servicer.DescribeProviders(pb.DescribeProvidersRequest(), CONTEXT)
    with pytest.raises(PermissionDenied):
        await servicer.TestProvider(pb.TestProviderRequest(provider_id="p"), CONTEXT)
    calls: list[tuple[Any, Any]] = [
        (servicer.DescribeInference, pb.DescribeInferenceRequest()),
        (servicer.DescribeRoutes, pb.DescribeRoutesRequest()),
        (servicer.DescribeCatalogue, pb.DescribeCatalogueRequest()),
        (servicer.PreviewCatalogue, pb.PreviewCatalogueRequest()),
        (servicer.ApplyCatalogue, pb.ApplyCatalogueRequest()),
    ]
    for call, request in calls:
        with pytest.raises(PermissionDenied):
            await call(request, CONTEXT)
    assert states.tested == []


async def test_virtual_models_are_described() -> None:
    """Each target with its part of what was asked of the virtual model; one that it had before is there, too."""
    answer = await servicer_of(Store(), States()).DescribeRoutes(pb.DescribeRoutesRequest(), CONTEXT)
    (route,) = answer.routes
    assert (route.model, route.strategy, route.traffic.requests) == ("best", "weighted", 3)
    assert [(each.model, each.weight, each.traffic.requests, each.traffic.fallbacks) for each in route.targets] == [
        ("p/m", 3.0, 0, 0),
        ("p/n", 1.0, 2, 1),
        ("q/before", 0.0, 1, 0),
    ]
    assert [each.HasField("resting_until") for each in route.targets] == [True, False, False]


TEXT = """\
providers:
- {id: p, adapter: openai, makes: text, base_url: http://p}
models:
- {id: m, provider: p, context_tokens: 100}
- {id: n, provider: p}
"""
OTHER = "- {id: q, adapter: openai, makes: text, base_url: 'http://q', credentials: {api_key: Q}}"


class Checking(States):
    """Services that refuse what they know better."""

    async def faults(self, text: str) -> dict[str, str | None]:
        return {"text": None, "image": "no such option" if "bad" in text else ""}


def editing_of(path: Path, states: Any, looked: list[int], *, editable: bool = True) -> CatalogueEditing:
    return CatalogueEditing(
        CatalogueFile(path, editable=editable),
        now=lambda: CATALOGUE,
        environment={},
        states=states,
        changed=lambda: looked.append(1),
    )


async def test_an_edit_is_previewed_and_applied(tmp_path: Path) -> None:
    """What changes is told before, row by row; then the file is the new text, whole, and who did it is audited. An edit
    of what the file was before is refused."""
    path, looked = tmp_path / "catalogue.yaml", list[int]()
    path.write_text(TEXT)
    path.chmod(0o640)
    store = Store()
    servicer = servicer_of(store, Checking(), editing=editing_of(path, Checking(), looked))
    shown = await servicer.DescribeCatalogue(pb.DescribeCatalogueRequest(), CONTEXT)
    assert (shown.text, shown.editable, shown.why) == (TEXT, True, "")
    assert [(row.model, row.kind) for row in shown.rows] == [
        ("p/m", pb.ROW_KIND_MODEL),
        ("p/n", pb.ROW_KIND_MODEL),
        ("virtual-text/best", pb.ROW_KIND_VIRTUAL),
        ("p/w-*", pb.ROW_KIND_WILDCARD),
    ]
    assert [(each.service, each.fault) for each in shown.faults] == [("router", "a fault of the router's")]
    text = TEXT.replace("100", "200").replace("id: n, provider: p", "id: o, provider: q")
    text = text.replace("models:", f"{OTHER}\nmodels:")
    preview = await servicer.PreviewCatalogue(pb.PreviewCatalogueRequest(text=text), CONTEXT)
    assert (preview.etag, list(preview.faults)) == (shown.etag, [])
    assert [(each.kind, each.what, each.name, list(each.fields)) for each in preview.changes] == [
        (pb.CHANGE_KIND_ADDED, "model", "q/o", []),
        (pb.CHANGE_KIND_ADDED, "provider", "q", []),
        (pb.CHANGE_KIND_CHANGED, "model", "p/m", ["context_tokens"]),
        (pb.CHANGE_KIND_REMOVED, "model", "p/n", []),
    ]
    assert [each.partition(":")[0] for each in preview.warnings] == [
        "the text service does not answer",
        "model p/n goes",
        "provider q is not configured",
    ]
    assert path.read_text() == TEXT
    applied = await servicer.ApplyCatalogue(pb.ApplyCatalogueRequest(text=text, etag=preview.etag), CONTEXT)
    assert (path.read_text(), path.stat().st_mode & 0o777, looked) == (text, 0o640, [1])
    assert applied.etag not in ("", shown.etag)
    assert store.audited == [("acc_1", "catalogue.changed", (f"from={shown.etag}", f"path={path}"))]
    with pytest.raises(Conflict, match="changed since"):
        await servicer.ApplyCatalogue(pb.ApplyCatalogueRequest(text=TEXT, etag=shown.etag), CONTEXT)
    assert len(store.audited) == 1, "what was not done is not in the log"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["catalogue.yaml"]


async def test_a_bad_edit_is_refused(tmp_path: Path) -> None:
    """With its place, whoever would refuse it; the file stays."""
    path = tmp_path / "catalogue.yaml"
    path.write_text(TEXT)
    servicer = servicer_of(Store(), Checking(), editing=editing_of(path, Checking(), []))
    typo = TEXT.replace("makes", "mks")
    (fault,) = (await servicer.PreviewCatalogue(pb.PreviewCatalogueRequest(text=typo), CONTEXT)).faults
    assert (fault.service, fault.fault.partition(";")[0]) == (
        "router",
        "catalogue.yaml: provider p: Object contains unknown field `mks`",
    )
    etag = etag_of(TEXT.encode())
    for text, says in ((typo, "the router would refuse it: catalogue.yaml"), (TEXT + "# bad", "image service would")):
        with pytest.raises(InvalidField, match=says):
            await servicer.ApplyCatalogue(pb.ApplyCatalogueRequest(text=text, etag=etag), CONTEXT)
    assert path.read_text() == TEXT


async def test_a_deployed_catalogue_is_not_changed(tmp_path: Path) -> None:
    """The refusal says what to do instead."""
    path = tmp_path / "catalogue.yaml"
    path.write_text(TEXT)
    servicer = servicer_of(Store(), Checking(), editing=editing_of(path, Checking(), [], editable=False))
    shown = await servicer.DescribeCatalogue(pb.DescribeCatalogueRequest(), CONTEXT)
    assert (shown.editable, "roll it out" in shown.why) == (False, True)
    with pytest.raises(Conflict, match="roll it out"):
        await servicer.ApplyCatalogue(pb.ApplyCatalogueRequest(text=TEXT, etag=shown.etag), CONTEXT)
