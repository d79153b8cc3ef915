"""A large raw body is read where it was received, as the message would be."""

from __future__ import annotations

import pytest
from google.api import httpbody_pb2
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from services.common.rpc.raw import RawBody


@given(content_type=st.text(max_size=20), data=st.binary(max_size=300), extended=st.booleans())
def test_it_holds_what_the_message_would(content_type: str, data: bytes, extended: bool) -> None:
    """Its type and its data; extensions are passed over."""
    message = httpbody_pb2.HttpBody(content_type=content_type, data=data)
    if extended:
        message.extensions.append(any_pb2.Any(type_url="x", value=b"y"))
    body = RawBody(message.SerializeToString())
    assert (body.content_type, bytes(body.data)) == (content_type, data)


def test_a_field_that_stands_twice_counts_as_it_stands_last() -> None:
    """As for every message."""
    twice = httpbody_pb2.HttpBody(data=b"a").SerializeToString() + httpbody_pb2.HttpBody(data=b"b").SerializeToString()
    assert bytes(RawBody(twice).data) == b"b" == httpbody_pb2.HttpBody.FromString(twice).data


@given(data=st.binary(max_size=60))
def test_what_is_no_body_is_refused(data: bytes) -> None:
    """Whatever bytes come: none of them is read beyond its end."""
    try:
        httpbody_pb2.HttpBody.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            RawBody(data)
    else:
        try:
            body = RawBody(data)
        except DecodeError:
            return  # a field that the message does not have, which a caller's body never holds
        assert bytes(body.data) == httpbody_pb2.HttpBody.FromString(data).data
