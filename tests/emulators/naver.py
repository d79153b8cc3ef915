"""Naver's shopping search, as strict as the real one: credentials, parameters, and its own error bodies.

https://developers.naver.com/docs/serviceapi/search/shopping/shopping.md
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

CLIENT_ID = "naver-client-id"
CLIENT_SECRET = "naver-client-secret"

_SORTS = ("sim", "date", "asc", "dsc")
_FILTERS = ("naverpay",)
_EXCLUDES = ("used", "rental", "cbshop")


class Refused(Exception):
    """What the API answers instead of items."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"errorMessage": message, "errorCode": code}


def shelf(query: str) -> list[dict[str, str]]:
    """Return everything that the emulated shops have for a query, in no order, with the API's every oddity."""
    made = []
    for number in range(12):
        digest = hashlib.sha256(f"{query}{number}".encode()).digest()
        price = 1000 + int.from_bytes(digest[:2], "big")
        made.append(
            {
                "title": f"<b>{query}</b> 모델 {number} &amp; 케이블",
                "link": f"https://search.shopping.naver.com/catalog/{int.from_bytes(digest[2:6], 'big')}",
                "image": f"https://shopping-phinf.pstatic.net/main_{number}/{number}.jpg",
                # The API leaves out prices that it does not know.
                "lprice": "" if number == 3 else str(price),
                "hprice": "",
                "mallName": "" if number % 4 == 0 else f"상점 {number}",
                "productId": str(int.from_bytes(digest[6:10], "big")),
                "productType": "1",
                "brand": "",
                "maker": "",
                "category1": "디지털/가전",
                "category2": "주변기기",
                "category3": query,
                "category4": f"유선{query}" if number % 2 else "",
            }
        )
    return made


class Naver:
    """The API on a free loopback port. `scripts`: statuses to answer next, whatever is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.scripts: deque[int] = deque()
        self.empty: set[str] = set()
        """Queries for which there is nothing."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    status, body = 200, outer.answer(self.path, {k.lower(): v for k, v in self.headers.items()})
                except Refused as refused:
                    status, body = refused.status, refused.body
                data = json.dumps(body, ensure_ascii=False).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json; charset=UTF-8")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Its address without a path."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, headers: dict[str, str]) -> dict[str, Any]:
        """Check a request and answer it. Raises Refused."""
        parts = urlsplit(path)
        if parts.path != "/v1/search/shop.json":
            raise Refused(404, "SE05", "Invalid search api (존재하지 않는 검색 api 입니다.)")
        if headers.get("x-naver-client-id") != CLIENT_ID or headers.get("x-naver-client-secret") != CLIENT_SECRET:
            raise Refused(401, "024", "NID AUTH Result Invalid (28) : Authentication failed. (인증에 실패했습니다.)")
        given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, errors="strict"))
        query, display, start = _checked(given)
        self.asked.append(given)
        if self.scripts:
            _scripted(self.scripts.popleft())
        found = [] if query in self.empty else shelf(query)
        if given.get("sort") in ("asc", "dsc"):
            found.sort(key=lambda item: int(item["lprice"] or 0), reverse=given["sort"] == "dsc")
        shown = found[start - 1 : start - 1 + display]
        return {
            "lastBuildDate": "Fri, 20 Nov 2026 12:00:00 +0900",
            "total": len(found),
            "start": start,
            "display": len(shown),
            "items": shown,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _checked(given: dict[str, str]) -> tuple[str, int, int]:
    unknown = set(given) - {"query", "display", "start", "sort", "filter", "exclude"}
    if unknown:
        raise Refused(400, "SE01", f"Incorrect query request (잘못된 쿼리요청입니다.): {sorted(unknown)}")
    if not given.get("query"):
        raise Refused(400, "SE01", "Incorrect query request (잘못된 쿼리요청입니다.)")
    display, start = given.get("display", "10"), given.get("start", "1")
    if not display.isdigit() or not 1 <= int(display) <= 100:
        raise Refused(400, "SE02", "Invalid display value (부적절한 display 값입니다.)")
    if not start.isdigit() or not 1 <= int(start) <= 1000:
        raise Refused(400, "SE03", "Invalid start value (부적절한 start 값입니다.)")
    if given.get("sort", "sim") not in _SORTS:
        raise Refused(400, "SE04", "Invalid sort value (부적절한 sort 값입니다.)")
    if given.get("filter", "naverpay") not in _FILTERS:
        raise Refused(400, "SE01", "Incorrect query request (잘못된 쿼리요청입니다.)")
    if any(each not in _EXCLUDES for each in given.get("exclude", "used").split(":")):
        raise Refused(400, "SE01", "Incorrect query request (잘못된 쿼리요청입니다.)")
    return given["query"], int(display), int(start)


def _scripted(status: int) -> None:
    if status == 429:
        raise Refused(429, "012", "Rate limit exceeded. (속도 제한을 초과했습니다.)")
    if status != 200:
        raise Refused(status, "SE99", "System Error (시스템 에러)")
