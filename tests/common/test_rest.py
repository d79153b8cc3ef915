"""What a REST caller's query says, by the path that it is behind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from moa.account.v1 import request_log_service_pb2 as pb
from moa.router.v1 import responses_service_pb2 as responses_pb
from services.common.errors import InvalidField
from services.common.rpc import rest

METHOD = "/moa.account.v1.RequestLogService/ListLoggedRequests"


def read(original: str) -> pb.ListLoggedRequestsRequest:
    """Return what a path and its query say."""
    message = pb.ListLoggedRequestsRequest()
    complete = rest.reader(METHOD)
    assert complete is not None
    complete(message, original)
    return message


def test_what_one_path_binds_is_a_parameter_of_another() -> None:
    """A team is named in its own path, or behind `/admin/requests`, and not in both."""
    assert read("/admin/requests?team_id=t&status=429").team_id == "t"
    assert read("/account/teams/t%2Fu/requests?status=429").status == 429
    with pytest.raises(InvalidField, match="unknown query parameter team_id"):
        read("/account/teams/t/requests?team_id=u")


def test_times_are_parameters_too() -> None:
    """As JSON writes them; anything else is refused by the parameter's name."""
    given = read("/admin/requests?since=2026-11-29T23:00:00Z&until=2026-11-30T00:00:00%2B01:00")
    assert given.since.ToDatetime(UTC) == given.until.ToDatetime(UTC) == datetime(2026, 11, 29, 23, tzinfo=UTC)
    for text in ("yesterday", ""):
        with pytest.raises(InvalidField, match="since must be a time like"):
            read(f"/admin/requests?since={text}")
    with pytest.raises(InvalidField, match="since is given twice"):
        read("/admin/requests?since=2026-11-29T23:00:00Z&since=2026-11-29T23:00:00Z")


def test_a_vendors_query_is_read_where_the_service_answers_as_the_vendor() -> None:
    """Numbers and booleans by name, lists once however often they are read; what it does not have is passed over."""
    complete = rest.reader("/moa.router.v1.ResponsesService/GetResponse")
    assert complete is not None
    given = responses_pb.ResponsesServiceGetResponseRequest(include=["a"])
    for _ in range(2):
        complete(
            given, "/v1/responses/r?stream=true&starting_after=7&include=a&include=b&include%5B%5D=c&response_id=x"
        )
    told = responses_pb.ResponsesServiceGetResponseRequest(stream=True, starting_after=7, include=["a", "b"])
    assert given == told
    with pytest.raises(InvalidField, match="starting_after must be a whole number") as refused:
        complete(given, "/v1/responses/r?starting_after=x")
    assert refused.value.param == "starting_after"
    assert rest.reader("/moa.router.v1.ResponsesService/GetConversation") is None
