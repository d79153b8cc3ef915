"""What is believed of an identity provider: its own token, of this log-in, for this client, signed by its key."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web

from services.auth.adapters import oidc_issuer
from services.auth.adapters.oidc_tokens import NoKeySet, read_keys
from services.auth.domain.oidc import SKEW_S, GroupRule, LogInFailed, Person, may_sign_up, person_of, wanted
from services.common.egress import Egress
from tests.emulators.issuer import Issuer, Manners, SigningKey, b64

VERIFIER, NONCE = "v" * 43, "n" * 43


@dataclass
class Pair:
    """An issuer, and what asks it."""

    issuer: Issuer
    asking: oidc_issuer.Issuer
    http: aiohttp.ClientSession

    async def code(self) -> str:
        location = await self.asking.begin(state="s" * 43, nonce=NONCE, verifier=VERIFIER)
        async with self.http.get(location, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]

    async def person(self, *, named: str | None = None, code: str | None = None, **other: str) -> Person:
        asked = {"verifier": VERIFIER, "nonce": NONCE, **other}
        person, _ = await self.asking.person(code=code or await self.code(), named=named, **asked)
        return person

    async def cause(self, **asked: Any) -> str:
        """Return why a log-in fails."""
        with pytest.raises(LogInFailed) as failure:
            await self.person(**asked)
        return failure.value.cause


def asking(issuer: Issuer, egress: Egress, **more: Any) -> oidc_issuer.Issuer:
    given: dict[str, Any] = {
        "issuer": issuer.url,
        "client_id": issuer.client_id,
        "client_secret": issuer.client_secret,
        "redirect_uri": issuer.redirect_uri,
        "home": "https://moa.example.com/",
        "scopes": "openid email",
        "groups_claim": "groups",
        **more,
    }
    return oidc_issuer.Issuer(egress, **given)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with Issuer() as issuer, aiohttp.ClientSession() as http:
        egress = Egress([f"127.0.0.1:{issuer.port}"])
        yield Pair(issuer, asking(issuer, egress), http)
        await egress.aclose()


NOW = int(time.time())
FOREIGN = SigningKey.make()
WRONG_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://other.example.com"}, "token_issuer"),
    ({"iss": None}, "token_issuer"),
    ({"aud": "another"}, "token_audience"),
    ({"aud": None}, "token_audience"),
    ({"aud": []}, "token_audience"),
    ({"aud": ["another", 5]}, "token_audience"),
    ({"aud": "moa2"}, "token_audience"),
    ({"aud": ["moa", "another"]}, "token_party"),
    ({"aud": ["moa", "another"], "azp": "another"}, "token_party"),
    ({"azp": "another"}, "token_party"),
    ({"azp": 5}, "token_party"),
    ({"exp": NOW - SKEW_S - 30}, "token_expired"),
    ({"iat": NOW - 7200, "exp": NOW + 7200}, "token_expired"),
    ({"exp": None}, "token_malformed"),
    ({"iat": None}, "token_malformed"),
    ({"exp": "tomorrow"}, "token_malformed"),
    ({"exp": True}, "token_malformed"),
    ({"exp": 1e300}, "token_malformed"),
    ({"exp": float("nan")}, "token_malformed"),
    ({"nbf": NOW + SKEW_S + 600}, "token_early"),
    ({"iat": NOW + SKEW_S + 600, "exp": NOW + 7200}, "token_early"),
    ({"nonce": "another"}, "token_nonce"),
    ({"nonce": None}, "token_nonce"),
    ({"nonce": 5}, "token_nonce"),
    ({"nonce": "\ud800"}, "token_nonce"),
    ({"sub": None}, "token_subject"),
    ({"sub": ""}, "token_subject"),
    ({"sub": 5}, "token_subject"),
    ({"sub": "x" * 256}, "token_subject"),
    ({"sub": "a\nb"}, "token_subject"),
]


def of_now(claims: dict[str, Any]) -> dict[str, Any]:
    """Return claims whose times count from now, and not from when this module was read: a run takes minutes."""
    late = int(time.time()) - NOW
    return {name: value + late if _is_near(value) else value for name, value in claims.items()}


def _is_near(value: object) -> bool:
    return isinstance(value, int | float) and abs(value - NOW) < 10_000


async def test_wrong_claims_are_refused(pair: Pair) -> None:
    """Each for what is wrong with it, though the signature is right."""
    for claims, cause in WRONG_CLAIMS:
        pair.issuer.manners = Manners(claims=of_now(claims))
        assert await pair.cause() == cause, claims
    assert not pair.issuer.refused


RIGHT_CLAIMS: list[dict[str, Any]] = [
    {},
    {"aud": ["moa"]},
    {"aud": ["another", "moa"], "azp": "moa"},
    {"azp": "moa"},
    {"exp": NOW - SKEW_S + 45},
    {"nbf": NOW + SKEW_S - 20},
    {"iat": NOW + SKEW_S - 20},
    {"exp": NOW + 300.5, "more": {"of": ["it"]}},
]


async def test_right_claims_are_taken(pair: Pair) -> None:
    """With clocks that are a minute apart, and several audiences where this client is who asked."""
    for claims in RIGHT_CLAIMS:
        pair.issuer.manners = Manners(claims=of_now(claims))
        assert (await pair.person()).subject == "person-1", claims


def forged(issuer: Issuer, how: str) -> str:
    """Return a token that the issuer did not make, of right claims."""
    own, claims = issuer.keys[0], issuer.claims(NONCE)
    head, payload, signature = own.token(claims).split(".")
    none, unnamed = (b64(json.dumps({**alg, "kid": own.kid}).encode()) for alg in ({"alg": "none"}, {}))
    return {
        "alg none": own.token(claims, alg="none"),
        "alg None": own.token(claims, alg="None"),
        "alg none with a signature": f"{none}.{payload}.{signature}",
        "HS256 by the public key": own.token(claims, alg="HS256"),
        "another algorithm": own.token(claims, alg="RS256"),
        "an algorithm that is not taken": own.token(claims, alg="ES384"),
        "no algorithm": f"{unnamed}.{payload}.{signature}",
        "another's key": FOREIGN.token(claims),
        "another's key that the token brings": FOREIGN.token(claims, jwk=FOREIGN.jwk(), jku=f"{issuer.url}/jwks"),
        "an unknown key": own.token(claims, kid="unknown"),
        "a changed claim": f"{head}.{b64(json.dumps({**claims, 'sub': 'x'}).encode())}.{signature}",
        "no signature": f"{head}.{payload}.",
        "half a signature": f"{head}.{payload}.{signature[:43]}",
        "something critical": own.token(claims, crit=["exp"], exp=1),
        "a payload that is not encoded": own.token(claims, crit=["b64"], b64=False),
        "two parts": f"{head}.{payload}",
        "five parts": f"{head}.{payload}.{signature}.{head}.{payload}",
        "a list": own.token([claims]),
        "no JSON": f"{head}.{b64(b'x')}.{signature}",
        "a name that is no text": own.token(claims, kid=5),
        "an empty text": "",
        "no token": "x",
        "other letters": "é.é.é",
    }[how]


FORGED = [
    ("alg none", "token_algorithm"),
    ("alg None", "token_algorithm"),
    ("alg none with a signature", "token_algorithm"),
    ("HS256 by the public key", "token_algorithm"),
    ("another algorithm", "token_key"),
    ("an algorithm that is not taken", "token_algorithm"),
    ("no algorithm", "token_malformed"),
    ("another's key", "token_signature"),
    ("another's key that the token brings", "token_signature"),
    ("an unknown key", "token_key"),
    ("a changed claim", "token_signature"),
    ("no signature", "token_signature"),
    ("half a signature", "token_signature"),
    ("something critical", "token_signature"),
    ("a payload that is not encoded", "token_malformed"),
    ("two parts", "token_malformed"),
    ("five parts", "token_malformed"),
    ("a list", "token_malformed"),
    ("no JSON", "token_signature"),
    ("a name that is no text", "token_malformed"),
    ("no token", "token_malformed"),
    ("other letters", "token_malformed"),
]


async def test_what_a_head_says_beside_is_passed_over(pair: Pair) -> None:
    """Unless it is critical; and the newer name of an algorithm is taken like the older one."""
    pair.issuer.manners = Manners(head={"x5t": "a", "vendor": {"a": [1]}, "typ": "JWT"})
    await pair.person()
    for name in ("EdDSA", "Ed25519"):
        pair.issuer.keys = [SigningKey.make("EdDSA", kid=name)]
        pair.issuer.keys[0].alg = name
        pair.issuer.manners = Manners()
        await pair.person()


async def test_forged_tokens_are_refused(pair: Pair) -> None:
    """Whatever their head says: the issuer's document and key set decide, and no token."""
    for how, cause in FORGED:
        pair.issuer.manners = Manners(id_token=forged(pair.issuer, how))
        assert await pair.cause() == cause, how


async def test_a_code_is_good_once_and_for_its_own_log_in(pair: Pair) -> None:
    """By the issuer's word: a second use and another log-in's verifier are refused, and another's nonce by us."""
    code = await pair.code()
    assert await pair.cause(code=code, verifier="w" * 43) == "code_refused"
    code = await pair.code()
    assert await pair.cause(code=code, nonce="m" * 43) == "token_nonce"
    assert await pair.cause(code=code) == "code_refused"
    assert await pair.cause(code=await pair.code(), named="https://other.example.com") == "other_issuer"
    assert await pair.person(named=pair.issuer.url)


async def test_an_issuer_that_names_itself_must(pair: Pair) -> None:
    """RFC 9207: where the document says that the way back has `iss`, one without it is another's."""
    pair.issuer.manners.document = {"authorization_response_iss_parameter_supported": True}
    assert await pair.cause(named=None) == "other_issuer"


async def test_keys_are_kept_and_asked_for_once_when_one_is_unknown(pair: Pair) -> None:
    """A rotated key works at once, and a withdrawn one no more when the set was read again."""
    issuer = pair.issuer
    await pair.person()
    await pair.person()
    assert issuer.fetched.count("/jwks") == issuer.fetched.count("/.well-known/openid-configuration") == 1
    old = issuer.keys[0]
    issuer.keys = [SigningKey.make(kid="second"), old]
    await pair.person()
    assert issuer.fetched.count("/jwks") == 2
    issuer.keys = [issuer.keys[0]]
    issuer.manners = Manners(id_token=SigningKey.make(kid="third").token(issuer.claims(NONCE)))
    assert await pair.cause() == "token_key"
    assert issuer.fetched.count("/jwks") == 3
    issuer.manners = Manners(id_token=old.token(issuer.claims(NONCE)))
    assert await pair.cause() == "token_key"


async def test_many_who_log_in_at_once_ask_for_the_keys_once(pair: Pair) -> None:
    """The others wait for the same answer."""
    assert len(await asyncio.gather(*(pair.person() for _ in range(8)))) == 8
    assert pair.issuer.fetched.count("/jwks") == pair.issuer.fetched.count("/.well-known/openid-configuration") == 1


async def test_a_key_without_a_name_is_taken_where_it_is_the_only_one_of_its_kind(pair: Pair) -> None:
    """Also when the issuer has another one in its place."""
    pair.issuer.keys = [SigningKey.make(kid=None), SigningKey.make("EdDSA", kid=None)]
    await pair.person()
    pair.issuer.keys[0] = SigningKey.make(kid=None)
    await pair.person()
    assert pair.issuer.fetched.count("/jwks") == 2
    pair.issuer.keys.insert(1, SigningKey.make(kid=None))
    pair.issuer.manners.id_token = SigningKey.make(kid=None).token(pair.issuer.claims(NONCE))
    assert await pair.cause() in ("token_key", "token_signature")


async def test_a_key_signs_by_the_algorithm_of_its_kind(pair: Pair) -> None:
    """Also where the set says neither its name nor its algorithm; a token that names another one has no key."""
    pair.issuer.keys = [SigningKey.make(alg, kid=None) for alg in ("ES256", "EdDSA", "RS256")]
    for key in pair.issuer.keys:
        key.names_alg = False
    for _ in range(3):
        await pair.person()
        pair.issuer.keys.append(pair.issuer.keys.pop(0))
    pair.issuer.keys = [SigningKey("one", pair.issuer.keys[0].private, "ES256", names_alg=False)]
    pair.issuer.manners = Manners(head={"alg": "RS256"})
    assert await pair.cause() == "token_key"


def test_keys_that_nobody_should_sign_with_are_none() -> None:
    """Shared secrets, short RSA keys, keys for encryption and what cannot be read; the rest of the set counts."""
    good = SigningKey.make("RS256", kid="good").jwk()
    bad: list[Any] = [
        {"kty": "oct", "k": b64(b"x" * 32), "kid": "a"},
        {**good, "use": "enc"},
        {**good, "n": b64(b"\xc0" + b"\x01" * 127), "kid": "short"},
        {**good, "n": b64(b"\xc0" + b"\x01" * 2047), "kid": "long"},
        {**good, "n": "%", "kid": "b"},
        {**SigningKey.make().jwk(), "crv": "P-384"},
        {**SigningKey.make().jwk(), "x": b64(b"\x01" * 32)},
        {"kty": "EC", "crv": "P-256"},
        {**good, "kid": 5},
        "x",
        None,
    ]
    assert [key.kid for key in read_keys(json.dumps({"keys": [*bad, good]}).encode())] == ["good"]
    for wrong in (b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", json.dumps({"keys": [good] * 101}).encode()):
        with pytest.raises(NoKeySet):
            read_keys(wrong)


DOCUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"issuer": "https://other.example.com"}, "document_wrong"),
    ({"issuer": None}, "document_wrong"),
    ({"token_endpoint": None}, "document_wrong"),
    ({"token_endpoint": "http://169.254.169.254/latest"}, "document_wrong"),
    ({"token_endpoint": "https://10.0.0.1/token"}, "document_wrong"),
    ({"jwks_uri": "file:///etc/passwd"}, "document_wrong"),
    ({"jwks_uri": "http://127.0.0.1:1/jwks"}, "document_wrong"),
    ({"authorization_endpoint": "javascript:alert(1)"}, "document_wrong"),
    ({"authorization_endpoint": ["x"]}, "document_wrong"),
    ({"authorization_endpoint": "https://a.example.com/#x"}, "document_wrong"),
]


async def test_a_document_that_is_not_right_is_not_gone_by(pair: Pair) -> None:
    """It is another issuer's, lacks something, or names what this gateway would not call."""
    for document, cause in DOCUMENTS:
        pair.issuer.manners = Manners(document=document)
        with pytest.raises(LogInFailed, match=cause):
            await pair.asking.begin(state="s", nonce=NONCE, verifier=VERIFIER)


async def test_answers_that_are_too_large_redirected_or_broken_are_refused(pair: Pair) -> None:
    """Of the token endpoint; and no redirect is followed with a code in hand."""
    moved = web.Response(status=307, headers={"location": f"{pair.issuer.url}/elsewhere"})
    answers = [
        (web.Response(body=b"x" * (1 << 20)), "token_endpoint_unreachable"),
        (moved, "token_endpoint_refused"),
        (web.Response(body=b"{}"), "token_endpoint_wrong"),
        (web.json_response({"id_token": 5}), "token_endpoint_wrong"),
        (web.json_response({"id_token": "x" * 70_000}), "token_endpoint_wrong"),
        (web.Response(body=b"[" * 100_000), "token_endpoint_wrong"),
        (web.Response(status=500), "token_endpoint_refused"),
        (web.json_response({"error": "invalid_client"}, status=401), "token_endpoint_refused"),
        (web.json_response({"error": ["x"]}, status=400), "token_endpoint_refused"),
    ]
    for answer, cause in answers:
        pair.issuer.manners = Manners(token_answer=answer)
        assert await pair.cause() == cause
    assert not {"/elsewhere", "/jwks"} & set(pair.issuer.fetched)


async def test_an_issuer_that_is_away_is_told(pair: Pair) -> None:
    """And asked again by the next log-in."""
    port = pair.issuer.port
    await pair.issuer.stop()
    with pytest.raises(LogInFailed, match="document_unreachable"):
        await pair.asking.begin(state="s", nonce=NONCE, verifier=VERIFIER)
    await pair.issuer.start(port)
    await pair.person()


async def test_a_public_client_sends_its_name_and_no_secret(pair: Pair) -> None:
    """PKCE alone; and a client whose secret goes into the form sends it there."""
    pair.issuer.client_secret = ""
    egress = Egress([f"127.0.0.1:{pair.issuer.port}"])
    pair.asking = asking(pair.issuer, egress)
    await pair.person()
    await egress.aclose()


async def test_where_a_session_with_the_issuer_ends(pair: Pair) -> None:
    """At its endpoint, with the token as a hint unless it is too long for a URL, and back to us; else nowhere."""
    url = await pair.asking.end_session_url("a.b.c")
    assert url.startswith(f"{pair.issuer.url}/logout?realm=a&")
    assert parse_qs(urlsplit(url).query) == {
        "realm": ["a"],
        "client_id": ["moa"],
        "id_token_hint": ["a.b.c"],
        "post_logout_redirect_uri": ["https://moa.example.com/"],
    }
    assert "id_token_hint" not in await pair.asking.end_session_url("x" * 5000)
    egress = Egress([f"127.0.0.1:{pair.issuer.port}"])
    pair.issuer.manners.document = {"end_session_endpoint": None}
    assert await asking(pair.issuer, egress).end_session_url("a.b.c") == ""
    await egress.aclose()


BASE: dict[str, Any] = {"iss": "https://i.example.com", "sub": "s"}


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({}, ()),
        ({"groups": []}, ()),
        ({"groups": ["a", "b", 5, "", "x" * 257]}, ("a", "b")),
        ({"groups": "a"}, ("a",)),
        ({"groups": {"a": 1}}, ()),
        ({"hasgroups": True}, None),
        ({"_claim_names": {"groups": "src1"}}, None),
        ({"_claim_names": {"other": "src1"}}, ()),
        ({"groups": [f"g{n}" for n in range(2001)]}, None),
    ],
)
def test_groups_of_a_token(claims: dict[str, Any], groups: tuple[str, ...] | None) -> None:
    """None where the issuer says that there are too many to tell: then they stay what they were."""
    assert person_of({**BASE, **claims}, "groups").groups == groups


def test_groups_may_lie_within_another_claim() -> None:
    """As Keycloak's roles do; a claim of the whole name counts before."""
    claims: dict[str, Any] = {**BASE, "realm_access": {"roles": ["a"]}}
    assert person_of(claims, "realm_access.roles").groups == ("a",)
    assert person_of({**claims, "realm_access.roles": ["b"]}, "realm_access.roles").groups == ("b",)
    assert person_of({**claims, "realm_access": "x"}, "realm_access.roles").groups == ()


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({"email": "A@Example.com", "email_verified": True}, "a@example.com"),
        ({"email": "a@example.com", "email_verified": "true"}, None),
        ({"email": "a@example.com", "email_verified": False}, None),
        ({"email": "a@example.com"}, None),
        ({"email": "no address", "email_verified": True}, None),
        ({"email": ["a@example.com"], "email_verified": True}, None),
    ],
)
def test_an_address_counts_where_it_is_verified(claims: dict[str, Any], email: str | None) -> None:
    """By `true` and nothing like it."""
    assert person_of({**BASE, **claims}, "groups").email == email


def test_who_gets_an_account() -> None:
    """Nobody, members of groups that are written down, or everybody; of them those of certain domains alone."""
    rules = [GroupRule("staff", "team_1")]
    staff = person_of({**BASE, "groups": ["staff"], "email": "a@b.example", "email_verified": True}, "groups")
    guest = person_of({**BASE, "groups": ["guests"]}, "groups")
    assert [may_sign_up(one, rules, "closed", ()) for one in (staff, guest)] == [False, False]
    assert [may_sign_up(one, rules, "groups", ()) for one in (staff, guest)] == [True, False]
    assert [may_sign_up(one, rules, "open", ()) for one in (staff, guest)] == [True, True]
    assert [may_sign_up(one, rules, "open", ("b.example",)) for one in (staff, guest)] == [True, False]
    assert not may_sign_up(staff, rules, "open", ("example",))
    assert wanted(["x", "staff"], rules) == rules
