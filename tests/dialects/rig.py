"""What the matrices ask of a dialect."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.descriptor import Descriptor
from msgspec import Struct

from services.common.large import LARGE_BYTES
from services.router.dialects.reading import MANY
from tests.emulators.pictures import png
from tests.router.rig import picture

Json = dict[str, Any]
COMMENT = ": keep-alive\n\n"
"""What is written in the silences of server-sent events."""
PICTURE = png(64, 64) + bytes(LARGE_BYTES)
BASE64 = base64.b64encode(PICTURE).decode()
LONG = 'a "long" 이야기\n' * (LARGE_BYTES // 16)
GIVEN = picture(64, 64)
GIVEN_URI = "data:image/png;base64," + base64.b64encode(GIVEN).decode()
SEEN = picture()
SEEN_URI = "data:image/png;base64," + base64.b64encode(SEEN).decode()
NAME, ARGUMENTS, RESULT = "weather", {"city": "서울"}, {"sky": "맑음"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": NAME, "description": "the weather", "parameters": SCHEMA}}
"""A tool, a call of it, and its result."""
TURNS = [{"role": "user", "content": "hello"}] * (MANY + 1)


@dataclass(frozen=True)
class Asked:
    """A request, as `requests.post` takes it."""

    path: str
    how: Mapping[str, Any]

    @property
    def body(self) -> Json:
        """Its JSON."""
        return dict(self.how["json"])


def asked(path: str, body: Json) -> Asked:
    """Return a request whose body is JSON; entries without a value are left out."""
    return Asked(path, {"json": {name: value for name, value in body.items() if value is not None}})


def sse(text: str) -> list[Any]:
    """Return the events of server-sent events; an end mark is a string."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    data = [line.removeprefix("data: ") for block in blocks for line in block.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in data]


def only_error(events: list[Any]) -> Json:
    """Return the failure that is the only event."""
    (event,) = events
    return dict(event["error"])


@dataclass(frozen=True, kw_only=True)
class StreamForm:
    """A form in which a dialect streams.

    Args:
        ask: Returns a request for it, of a model.
        makes: What its model makes: `text` or `image`.
        sign: What is written in its silences.
        read: Returns the events of its bytes.
        is_marked: Whether its end mark follows a failure too.
        failure: Returns the failure of the events, but for an end mark, of a stream that failed before it began.
    """

    ask: Callable[[str], Asked]
    makes: str = "text"
    sign: str = COMMENT
    read: Callable[[str], list[Any]] = sse
    is_marked: bool = False
    failure: Callable[[list[Any]], Json] = only_error


@dataclass(frozen=True, kw_only=True)
class LargeBody:
    """A body that is large enough for the helper process, and what reads it."""

    read: Callable[..., Any]
    data: Any
    content_type: str = "application/json"
    more: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body that becomes a contract's request.

    Args:
        kind: Its documented shape.
        request: The contract's message.
        unset: The fields of that which such a body cannot set.
        batch: A body that holds several such bodies; none where there is none.
    """

    kind: type[Struct]
    request: Descriptor
    unset: frozenset[str] = frozenset()
    batch: type[Struct] | None = None


class Served(Protocol):
    """A gateway, and a key of its."""

    url: str
    key: str


class AsksText(Protocol):
    """Returns a request for a text."""

    def __call__(self, model: str, words: str, *, stream: bool = False, max_tokens: int | None = None) -> Asked: ...


class AsksImages(Protocol):
    """Returns a request for so many images."""

    def __call__(self, model: str, words: str, count: int = 1) -> Asked: ...


class AsksChange(Protocol):
    """Returns a request for a change of an image."""

    def __call__(self, model: str, words: str, picture: bytes) -> Asked: ...


@dataclass(frozen=True, kw_only=True)
class DialectRig:
    """What is known of every dialect.

    Args:
        name: As it is registered.
        path: A path of its own, whose failures are worded by it.
        code: Returns the code of a failure's body.
        message: Returns its message.
        is_query: Whether the path is read by GET, with what is asked in `task_id`.
    """

    name: str
    path: str
    code: Callable[[Json], Any]
    message: Callable[[Json], Any]
    is_query: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerRig(DialectRig):
    """What is known of a dialect that the router answers in.

    Args:
        key: Returns the headers that carry a caller's key as its clients send it.
        text: Asks for a text.
        image: Asks for images; None where a dialect has none, as for what follows of images.
        most_images: How many it can ask for at once.
        texts: Each asks a model by a client of the dialect, and returns the text.
        visions: Each shows a model `SEEN`, and returns what it says.
        tools: Offers a model `TOOL`, gives back `RESULT`, and returns the call's arguments and the answer.
        paint: Returns the images that a model makes of "a red circle"; None where it makes none.
        edit: Returns those that it makes of `GIVEN` too; likewise.
        changes: Each asks a model for changes of an image, given as bytes, with words.
        streams: The forms in which it streams.
        in_stream: Returns what a rendered failure is in a stream.
        failure_in: Returns that of the event which tells it.
        large: Large bodies, each of another reader.
        bodies: Every body that is paid for, once for each contract that it becomes a request of.
    """

    key: Callable[[str], Mapping[str, str]]
    text: AsksText
    image: AsksImages | None = None
    most_images: int = 1
    texts: Sequence[Callable[[Served, str], str]]
    visions: Sequence[Callable[[Served, str], str]]
    tools: Callable[[Served, str], tuple[Any, str]]
    paint: Callable[[Served, str], list[bytes]] | None = None
    edit: Callable[[Served, str], list[bytes]] | None = None
    changes: Sequence[AsksChange] = ()
    streams: Mapping[str, StreamForm]
    in_stream: Callable[[Json], Json] = lambda rendered: rendered
    failure_in: Callable[[Json], Json] = lambda event: event
    large: Mapping[str, LargeBody]
    bodies: Sequence[Body]
