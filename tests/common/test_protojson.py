"""JSON read into messages: nothing that does not fit is passed over, and each refusal names its field."""

from __future__ import annotations

import contextlib
import json
from typing import TypeVar

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from moa.account.v1 import account_pb2, account_service_pb2, admin_service_pb2, budget_service_pb2, team_service_pb2
from moa.image.v1 import image_service_pb2
from moa.quota.v1 import quota_pb2
from moa.task.v1 import task_pb2, task_service_pb2
from services.common import protojson
from services.common.errors import InvalidField, Malformed, TooLarge
from services.common.rpc import status

KEY = account_service_pb2.CreateKeyRequest
TASK = task_service_pb2.CreateTaskRequest


M = TypeVar("M", bound=Message)


def read(kind: type[M], body: bytes) -> M:
    message = kind()
    protojson.fill(message, protojson.load(body))
    return message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"scope": []}', "scope"),
        (b'{"scopes": [{"model": "a"}, {"modle": "b"}]}', "scopes[1].modle"),
        (b'{"scopes": {"model": "a"}}', "scopes"),
        (b'{"scopes": [null]}', "scopes[0]"),
        (b'{"scopes": [{"operations": ["OPERATION_FLY"]}]}', "scopes[0].operations[0]"),
        (b'{"scopes": [{"operations": [99]}]}', "scopes[0].operations[0]"),
        (b'{"scopes": [{"operations": [true]}]}', "scopes[0].operations[0]"),
        (b'{"name": 5}', "name"),
        (b'{"name": "\\ud800"}', "name"),
        (b'{"priority": "\\ud800"}', "priority"),
        (b'{"manages": ["\\ud800"]}', "manages[0]"),
        (b'{"expires_in": "\\ud800"}', "expires_in"),
        (b'{"tokens_a_day": "\\ud800"}', "tokens_a_day"),
        (b'{"scopes": [{"provider": "\\ud800"}]}', "scopes[0].provider"),
        (b'{"name": "a", "name": "b"}', "name"),
        (b'{"tokens_a_day": 1, "tokensADay": 2}', "tokensADay"),
        (b'{"tokens_a_day": -1}', "tokens_a_day"),
        (b'{"tokens_a_day": 4294967296}', "tokens_a_day"),
        (b'{"tokens_a_day": 1.5}', "tokens_a_day"),
        (b'{"tokens_a_day": 1e999}', "tokens_a_day"),
        (b'{"tokens_a_day": true}', "tokens_a_day"),
        (b'{"tokens_a_day": "many"}', "tokens_a_day"),
        ('{"tokens_a_day": "١٢"}'.encode(), "tokens_a_day"),
        (b'{"tokens_a_day": "1_000"}', "tokens_a_day"),
        (b'{"tokens_a_day": " 12"}', "tokens_a_day"),
        (b'{"tokens_a_day": [1]}', "tokens_a_day"),
        (b'{"expires_in": "an hour"}', "expires_in"),
        (b'{"expires_in": "1y"}', "expires_in"),
        (b'{"expires_in": "30m1h"}', "expires_in"),
        (b'{"expires_in": ""}', "expires_in"),
        (b'{"expires_in": true}', "expires_in"),
        (b'{"expires_in": 1e300}', "expires_in"),
        (b'{"expires_in": {"seconds": 3600}}', "expires_in"),
        (b"[]", ""),
        (b"null", ""),
    ],
)
def test_what_does_not_fit_is_named(body: bytes, param: str) -> None:
    """An unknown field, a wrong type, a number out of range, a name twice: refused, with the path to it."""
    with pytest.raises(InvalidField) as refused:
        read(KEY, body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"scope": []}', "unknown field scope; use scopes"),
        (b'{"scopes": ["text"]}', 'scopes[0] must be an object; write {"operations": ["text"]}'),
        (b'{"scopes": [7]}', "scopes[0] must be an object of provider, model or operations"),
        (b'{"scopes": [{"operation": "x"}]}', "unknown field scopes[0].operation; use operations"),
        (
            b'{"scopes": [{"operations": ["OPERATION_TXT"]}]}',
            "scopes[0].operations[0] must be one of text, image, task; did you mean text?",
        ),
        (b'{"priority": "urgent"}', "priority must be one of low, normal, high"),
    ],
)
def test_what_may_stand_there_is_told(body: bytes, told: str) -> None:
    """Words, fields and objects that are none are answered with those that there are, the likest first."""
    with pytest.raises(InvalidField) as refused:
        read(KEY, body)
    assert refused.value.message == told


@pytest.mark.parametrize(
    "body", [b"name=a&scopes=b", b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n--x--']
)
def test_a_form_is_told_to_be_json(body: bytes) -> None:
    """Both ways to write a form, however the Content-Type calls it."""
    with pytest.raises(Malformed, match="send JSON, with Content-Type: application/json"):
        read(KEY, body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"work": {"image": {}, "desk": {}}}', "work.desk"),
        (b'{"work": {"image": {"images": [{"data": "!!!!"}]}}}', "work.image.images[0].data"),
        (b'{"work": {"image": {"images": [{"data": "AAAAA"}]}}}', "work.image.images[0].data"),
        (b'{"work": {"image": {"diffusion": {"strength": "NaN"}}}}', "work.image.diffusion.strength"),
        (b'{"work": {"image": {"diffusion": {"strength": true}}}}', "work.image.diffusion.strength"),
        (b'{"work": {"image": []}}', "work.image"),
    ],
)
def test_what_does_not_fit_deep_inside_is_named(body: bytes, param: str) -> None:
    """Two of a choice, bytes that are not base64 and numbers that are none are refused at any depth."""
    with pytest.raises(InvalidField) as refused:
        read(TASK, body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a"} {}',
        b'{"name": "a"',
        b"{'name': 'a'}",
        b'\xef\xbb\xbf{"name": "a"}',
        b'{"name": "\xff"}',
        '{"name": "a"}'.encode("utf-16"),
        b'{"tokens_a_day": NaN}',
        b'{"tokens_a_day": -Infinity}',
        b'{"tokens_a_day": ' + b"9" * 100_000 + b"}",
        b'{"a":' * 10_000,
        b"[" * 40_000,
    ],
    ids=range(11),
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """Rubbish behind the object, other encodings, NaN and depths that exhaust a parser are the caller's 400."""
    with pytest.raises(Malformed):
        read(KEY, body)


def test_a_body_of_very_many_values_is_not_parsed() -> None:
    """What would occupy the process for seconds is refused by its length in values."""
    with pytest.raises(TooLarge):
        protojson.load(b'{"scopes":[' + b"{}," * 5_000_000 + b"{}]}")


@pytest.mark.parametrize(
    ("body", "same"),
    [
        (b"", b"{}"),
        (b" \n", b"{}"),
        (b'{"tokensADay": 5}', b'{"tokens_a_day": 5}'),
        (b'{"tokens_a_day": "5"}', b'{"tokens_a_day": 5}'),
        (b'{"tokens_a_day": 5.0}', b'{"tokens_a_day": 5}'),
        (b'{"tokens_a_day": null, "scopes": null}', b"{}"),
        (b'{"scopes": [{"operations": [1]}]}', b'{"scopes": [{"operations": ["OPERATION_TEXT"]}]}'),
        (b'{"name": "two\nlines"}', b'{"name": "two\\nlines"}'),
    ],
)
def test_the_spellings_of_proto_json_are_the_same(body: bytes, same: bytes) -> None:
    """Both cases of a name, numbers as strings, null for nothing and raw newlines are taken."""
    assert read(KEY, body) == read(KEY, same)


def test_base64_is_read_in_either_alphabet_and_wrapped() -> None:
    """As GNU base64 wraps it, padded or not."""
    for text in ("+/+/\\n+w==", "-_-_-w", "+/+/+w"):
        made = read(TASK, b'{"work": {"image": {"images": [{"data": "%s"}]}}}' % text.encode())
        assert made.work.image.images[0].data == b"\xfb\xff\xbf\xfb"


def test_an_empty_object_chooses() -> None:
    """`{"image": {}}` says which work it is."""
    assert read(task_pb2.TaskWork, b'{"image": {}}').WhichOneof("work") == "image"


@given(
    st.builds(
        image_service_pb2.GenerateImageRequest,
        model=st.text(),
        count=st.integers(0, 2**32 - 1),
        seed=st.integers(-(2**63), 2**63 - 1),
        colors=st.lists(st.text()),
    )
)
def test_what_a_message_prints_reads_back(message: image_service_pb2.GenerateImageRequest) -> None:
    """Protobuf's own JSON of a message is that message."""
    assert read(type(message), json_format.MessageToJson(message).encode()) == message


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_any_value_is_taken_or_refused(value: object) -> None:
    """Whatever stands in a field, the answer is a refusal or the field set."""
    for name in admin_service_pb2.UpdateAccountRequest.DESCRIPTOR.fields_by_name:
        with contextlib.suppress(InvalidField, Malformed):
            read(admin_service_pb2.UpdateAccountRequest, json.dumps({name: value}).encode())


@pytest.mark.parametrize(
    "body", [b'{"\\ud83d": 1}', b'{"scopes": [{"a\\udc00b": 1}]}', b'{"\\ud83d": 1, "\\ud83d": 2}']
)
def test_a_name_that_cannot_be_sent_back_is_refused_all_the_same(body: bytes) -> None:
    """Half a surrogate pair in a field's name is told with a question mark in its place, in the status and headers."""
    with pytest.raises(InvalidField) as refused:
        read(KEY, body)
    assert "?" in refused.value.param
    assert dict(status.trailers_of(refused.value, "r"))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"24h"', 86_400),
        ('"1h30m"', 5_400),
        ('"7d"', 604_800),
        ('"90s"', 90),
        ('"3.5s"', 3.5),
        ("3600", 3600),
        ("0.5", 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(written: str, seconds: float) -> None:
    """With units, or as a number of seconds, beside proto3's own form."""
    read_in = read(KEY, f'{{"expires_in": {written}}}'.encode()).expires_in
    assert read_in.ToMilliseconds() == seconds * 1000


def test_words_of_enums_need_no_prefix() -> None:
    """ "admin" is ROLE_ADMIN, in any case; the contract's own names are taken as before."""
    for word in ("admin", "Admin", "ROLE_ADMIN"):
        account = read(admin_service_pb2.CreateAccountRequest, f'{{"role": "{word}"}}'.encode())
        assert account.role == account_pb2.ROLE_ADMIN
    key = read(KEY, b'{"priority": "low", "manages": ["account"], "scopes": [{"operations": ["text"]}]}')
    assert (key.priority, list(key.manages)) == (quota_pb2.PRIORITY_LOW, [account_pb2.SCOPE_ACCOUNT])
    assert list(key.scopes[0].operations) == [quota_pb2.OPERATION_TEXT]


def test_null_takes_a_limit_away() -> None:
    """Where the contract has a list for it; what is not there is not touched, and elsewhere null leaves unset."""
    body = b'{"limits": {"usdAMonth": null, "tokens_a_day": 5}, "no_limit": ["keys"]}'
    changed = read(admin_service_pb2.UpdateAccountRequest, body)
    assert sorted(changed.no_limit) == ["keys", "usd_a_month"]
    assert changed.limits == account_pb2.Limits(tokens_a_day=5)
    made = read(admin_service_pb2.CreateAccountRequest, b'{"limits": {"usd_a_month": null}}')
    assert not made.limits.HasField("usd_a_month")
    me = read(account_service_pb2.UpdateMeRequest, b'{"stores_responses": null}')
    assert list(me.by_default) == ["stores_responses"]
    assert not read(account_service_pb2.UpdateMeRequest, b'{"stores_responses": true}').by_default


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for module in (account_service_pb2, admin_service_pb2, budget_service_pb2, team_service_pb2)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Message) and "no_limit" in kind.DESCRIPTOR.fields_by_name
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_change_of_limits_takes_null(kind: type[Message]) -> None:
    """A change that has `no_limit` has it from null, too, whoever is limited by it."""
    assert list(read(kind, b'{"limits": {"usd_a_month": null}}').no_limit) == ["usd_a_month"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "dollars"),
    [
        (b"5", "5"),
        (b"5.5", "5.5"),
        (b"0.1", "0.1"),
        (b"123456789012.123456789", "123456789012.123456789"),
        (b"5e0", "5e0"),
        (b'"5.00"', "5.00"),
    ],
)
def test_dollars_may_be_a_number_whose_digits_stay(written: bytes, dollars: str) -> None:
    """A decimal is taken as it is written, with more digits than a float has; other strings and words are no number."""
    assert read(account_pb2.Limits, b'{"usd_a_day": %s}' % written).usd_a_day == dollars
    for other in (b"true", b"[5]", b"{}", '"٥"'.encode()):
        with pytest.raises(InvalidField, match=r'usd_a_day must be a decimal, such as 5\.00 or "5\.00"'):
            read(account_pb2.Limits, b'{"usd_a_day": %s}' % other)


def test_a_message_that_is_a_list_is_written_as_one() -> None:
    """As where the list stands by itself; its items are named by their place, and the longer form is taken too."""
    kind = team_service_pb2.UpdateTeamRequest
    as_list = read(kind, b'{"rules": [{"provider": "openai-*"}, {}]}')
    assert as_list == read(kind, b'{"rules": {"rules": [{"provider": "openai-*"}, {}]}}')
    assert read(kind, b'{"rules": []}').HasField("rules")
    assert not read(kind, b'{"rules": null}').HasField("rules")
    with pytest.raises(InvalidField) as refused:
        read(kind, b'{"rules": [{}, {"providr": "x"}]}')
    assert refused.value.param == "rules[1].providr"
    with pytest.raises(InvalidField, match="limits must be an object"):
        read(kind, b'{"limits": []}')
