"""Reports of spending as callers see them: pages of rows, or a file."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Any, Final, Protocol, TypeVar

from google.api import httpbody_pb2

from moa.account.v1 import account_service_pb2, admin_service_pb2, spend_pb2
from services.auth import render
from services.auth.adapters.spend import Spend, Spent
from services.auth.domain.spend import Report, SpendRecord
from services.common import page_tokens
from services.common.errors import InvalidField
from services.common.rpc import rest
from services.quota_client.amounts import dollars

MOST_ROWS: Final = 100_000
"""Of a file: 15 MB."""
_FORMULAS: Final = tuple("=+-@\t\r")

Response = TypeVar("Response", account_service_pb2.GetSpendResponse, admin_service_pb2.ReportSpendResponse)


class Paged(Protocol):
    """What both requests for pages say."""

    page_size: int
    page_token: str


async def page(spend: Spend, report: Report, asked: Paged, response: type[Response]) -> Response:
    """Return a page of a report. Raises InvalidField for a token that is none of it."""
    size = render.page_size(asked.page_size, default=1000, most=1000)
    found = await spend.read(report, limit=size + 1, after=_place(asked.page_token))
    more = len(found.rows) > size
    return response(
        rows=[_row(record, report) for record in found.rows[:size]],
        next_page_token=_token(found.rows[size - 1]) if more else "",
        total=_row(found.total, report),
        from_day=report.first.isoformat(),
        to_day=report.last.isoformat(),
        as_of=render.timestamp(found.as_of),
    )


async def file(spend: Spend, report: Report) -> httpbody_pb2.HttpBody:
    """Return a report as comma-separated values. Raises InvalidField for one that is too long."""
    found = await spend.read(report, limit=MOST_ROWS + 1)
    if len(found.rows) > MOST_ROWS:
        raise InvalidField(f"more than {MOST_ROWS:,} rows; ask for fewer days, or by month", param="to_day")
    return httpbody_pb2.HttpBody(content_type="text/csv; charset=utf-8", data=_csv(found, report).encode())


def complete(request: Any, context: Any, method: str) -> None:
    """Read into a request what a REST caller's query says; a gRPC caller's is complete. Raises InvalidField."""
    original = dict(context.invocation_metadata() or ()).get(rest.ORIGINAL_PATH)
    if isinstance(original, str):
        rest.read_query(method, request, original)


def _csv(found: Spent, report: Report) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    columns = [field.name for field in spend_pb2.SpendRow.DESCRIPTOR.fields]
    writer.writerow([{"time": report.time, "group": report.group}.get(name, name) for name in columns])
    for record in found.rows:
        row = _row(record, report)
        writer.writerow([_cell(getattr(row, name)) for name in columns])
    return out.getvalue()


def _cell(value: object) -> object:
    """Return what is written: a text that a spreadsheet would calculate stands behind an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _row(record: SpendRecord, report: Report) -> spend_pb2.SpendRow:
    time = ""
    if record.starts is not None:
        time = f"{record.starts:%Y-%m}" if report.time == "month" else record.starts.isoformat()
    return spend_pb2.SpendRow(
        time=time,
        group=record.value,
        name=record.name,
        usd=dollars(record.spent.nano_usd),
        requests=max(0, record.requests),
        unpriced_requests=max(0, record.unpriced_requests),
        prompt_tokens=max(0, record.prompt_tokens),
        completion_tokens=max(0, record.completion_tokens),
        tokens=max(0, record.spent.tokens),
        images=max(0, record.spent.images),
        micro_credits=max(0, record.spent.micro_credits),
    )


def _token(record: SpendRecord) -> str:
    return page_tokens.written([str(record.starts), record.value])


def _place(token: str) -> tuple[date, str] | None:
    place = page_tokens.read(token)
    if place is None:
        return None
    try:
        starts, value = place
        return date.fromisoformat(starts), str(value)
    except (TypeError, ValueError):
        raise page_tokens.unknown() from None
