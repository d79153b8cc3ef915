"""What an operation is: declared once as a value, and taken as a parameter by whatever handles requests.

`services/router/operations` declares one a module. The policy (`operations`, `attempts`, `answer`), the calls of the
backends, the listing, the spans and the gRPC API know operations by these types alone.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar

from moa.common.v1 import media_pb2, usage_pb2
from moa.quota.v1 import quota_pb2
from moa.router.v1 import catalog_service_pb2
from services.catalogue import Catalogue, Cost, Model, Provider, Timeouts
from services.common import limits
from services.common.errors import ContextTooLong, MoaError
from services.common.helper_process import is_large_request
from services.common.operations import CONTRACTS
from services.quota_client.amounts import Amount
from services.router.domain.attempts import Attempts
from services.router.domain.caller import Caller
from services.router.domain.ports import M, MessageStream, Payer, Reservation
from services.router.domain.terms import Ask, Begun

if TYPE_CHECKING:
    from services.router.domain.request_log import Recording

R = TypeVar("R", bound="Request")
T = TypeVar("T")


class Request(Protocol):
    """What every operation's request has."""

    model: str
    provider: str


class Needed(NamedTuple):
    """What is reserved for a request."""

    need: Amount
    least: Amount
    """With less it is refused."""


class Carriage(NamedTuple):
    """How a call is carried to whoever answers."""

    timeouts: Timeouts
    whole_s: float | None = None
    """How long an answer in one message may take; None: it is a stream, whose silences are bounded by `timeouts`."""
    waiting: Callable[[], Any] | None = None
    """Makes the message that tells that a request waits for the process of its model; None: it is refused then."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """A method of an operation's service, where it is called and where it is served."""

    name: str
    request: type[Any]
    response: type[Any]
    asked: Callable[[Any], Any] = lambda request: request
    """Returns the method's request, of the operation's: a message, or its bytes, which a call holds until it ends."""
    inner: Callable[[Any], Any] = lambda request: request
    """Returns the operation's request, of the method's."""
    answered: Callable[[Any], Any] = lambda response: response
    """Returns a message of the operation, of the method's response."""
    gathered: Callable[[Sequence[Any]], Any] = lambda messages: messages[-1]
    """Returns the method's response, of all messages of an answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation(Generic[R, M]):
    """One operation, declared."""

    name: str
    """What its models make, as catalogue rows say it."""
    quota: quota_pb2.Operation.ValueType
    """What a key must be permitted."""
    kind: catalog_service_pb2.ModelKind.ValueType
    """How the catalogue's contract names such models."""
    stream: Method | None
    """Gives the events as they come."""
    whole: Method | None
    """Gives them in one message."""
    carriage: Callable[[R, Model, Provider], Carriage]
    """Tells which of the two carries a request."""
    span: str
    """The conventions' name of the operation (`gen_ai.operation.name`)."""
    noted: Callable[[R], Mapping[str, Any]]
    """Returns what a request's span says of it."""
    outcome: Callable[[Any, str | None], str] = lambda event, kind: ""
    """Returns the finish reason that an event of this kind tells; empty where it tells none."""
    started: Callable[[Model, Sequence[str]], M] | None = None
    """Makes the message that tells a caller who answers and what of the request it ignored, before all others."""
    nameless: bool = False
    """Whether a request without a model is for the catalogue's first."""

    @property
    def service(self) -> str:
        """The contract's full name, for callers and for whoever really answers."""
        return CONTRACTS[self.name].service


@dataclass(frozen=True, kw_only=True, eq=False)
class CountingOperation(Operation[R, M]):
    """One operation whose callers may have a prompt's tokens counted."""

    count: Method
    """Counts them."""
    counting: Callable[[Any], Call[R, M]]
    """Returns the call whose prompt a request of `count` holds."""


class Owed(NamedTuple):
    """What a caller owes who left before the end (docs/charging.md)."""

    usage: usage_pb2.Usage
    known: bool = False
    """Whether that is all; else whoever answers is to say how far it had come."""
    prompt: Callable[[Model], Awaitable[int]] | None = None
    """Counts the prompt, where only that is not known."""


class Metering(abc.ABC):
    """What one answer consumes and its caller owes."""

    usage: usage_pb2.Usage
    """As it was reported last."""
    pieces: Collection[str] = ()
    """Kinds of events that may be told of later, several at once, before they have `mark - tokens` bytes."""
    mark: float = 0
    """How many tokens it must hear of at once."""
    tokens: int = 0
    """How many it has heard of."""

    def __init__(self) -> None:
        self.usage = usage_pb2.Usage()

    def saw(self, event: Any, kind: str | None) -> None:
        """Note an event that is on its way to the caller."""
        if kind == "usage":
            self.usage = event.usage
        elif kind == "finished":
            self.usage = event.finished.usage

    def saw_messages(self, messages: Iterable[Any]) -> None:
        """Note the events of several messages; none behind an error counts."""
        for message in messages:
            for event in message.events:
                if (kind := event.WhichOneof("event")) == "error":
                    break
                self.saw(event, kind)

    @abc.abstractmethod
    def consumed(self, *, ended: bool) -> usage_pb2.Usage | None:
        """Return what is to be charged; None when nothing was delivered or reported."""

    @abc.abstractmethod
    def abandoned(self, *, ended: bool) -> Owed:
        """Return what is owed by a caller who left before it had what it is charged for."""

    def handed(self, count: int) -> None:  # noqa: B027  # counts for what is charged on delivery
        """Note that `count` more things have been written to the caller."""

    def handed_message(self, message: Any) -> None:  # noqa: B027
        """Note that a message has been written to the caller."""

    @property
    def is_due(self) -> bool:
        """Whether an answer that is complete has not been handed over."""
        return False

    def broke(self) -> None:  # noqa: B027
        """Note that the answer broke in a way that may be mended."""

    def goes_on(self) -> None:  # noqa: B027
        """Note that another target goes on."""

    def let_go(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of the request."""


class WayOn(Protocol[M]):
    """How an answer goes on elsewhere that failed after its first event."""

    def saw_messages(self, messages: Iterable[M]) -> None:
        """Note messages that are on their way to the caller, up to an error."""

    def may_help(self, model: Model, error: MoaError) -> bool:
        """Return whether an answer that failed like this may go on elsewhere."""

    async def go_on(self, model: Model, error: MoaError) -> Begun[M] | None:
        """Return what goes on after the messages that were noted; None when nobody can. `model` failed by `error`."""


class Backends(Protocol):
    """Whoever really answers."""

    def ask(
        self,
        operation: Operation[R, M],
        request: R,
        model: Model,
        caller: Caller,
        reserved: Reservation,
        *,
        prompt_bound: int | None = None,
        books: bool = True,
    ) -> MessageStream[M]:
        """Begin an answer.

        Args:
            prompt_bound: How many tokens the prompt has at most; None: nobody is charged for one.
            books: Whether the service may book what it delivered, should this process vanish.
        """

    async def count_tokens(self, request: Any, model: Model, caller: Caller, payer: Payer) -> int:
        """Count the tokens of a prompt, in the turns of its account. Raises MoaError."""


class Call(abc.ABC, Generic[R, M]):
    """One request, from its reading to its answer. It is changed at each attempt: model and provider are the target's.

    `Operations.begin` calls `bind`, `check`, `amount`, `admitted`, and then `ask` as often as it takes.
    """

    operation: Operation[R, M]
    whole: bool = True
    """Whether the answer is paid for as a whole: a target that may have made it is not asked for it twice."""
    is_answered: bool = False
    """Whether it was answered already, and another service pays."""
    recording: Recording | None = None
    """What is noted of it for the log of its team's requests; None: nothing is."""

    def __init__(self, request: R) -> None:
        self.request = request

    @classmethod
    async def received(cls, request: R, reading: Any) -> Self:
        """Return the call of a typed request; `reading` looks through large ones elsewhere."""
        return cls(request)

    def changed(self, request: R) -> Self:
        """Return the call of another request in the place of this one's."""
        return type(self)(request)

    def bind(self, caller: Caller, backends: Backends) -> None:
        """Take who asks and who answers."""
        self.caller, self.backends = caller, backends

    def check(self, model: Model) -> None:
        """Raise InvalidField or Unsupported where the request is wrong, or the model that was asked for cannot do it.

        Defaults are filled in.
        """
        self.check_request()
        self.check_able(model)

    def check_request(self) -> None:
        """Raise InvalidField where the request is wrong, whoever is asked."""
        limits.check(self.request)  # type: ignore[arg-type]  # a message, as every request

    def check_able(self, model: Model) -> None:
        """Raise Unsupported, InvalidField or ContextTooLong where a model cannot do what is asked."""
        limits.check_able(self.request, model)  # type: ignore[arg-type]

    def images(self) -> Sequence[tuple[str, media_pb2.ImageInput]]:
        """Return the request's images with the fields that name them."""
        return ()

    @abc.abstractmethod
    def amount(self, models: Sequence[Model]) -> Needed:
        """Return what is reserved, whichever of the models answers: its prices bound what it may cost."""

    def cost(self, catalogue: Catalogue) -> Cost:
        """Return what tells the cost of what was consumed, by the prices of now, whenever it ends."""
        return catalogue.cost_on()

    def outgrown(self, model: Model, others: Sequence[Model]) -> ContextTooLong | None:
        """Return why the request plainly does not fit `model`, where it may fit another; raise it where it fits none.

        Called after `amount`.
        """
        return None

    async def recounted(self, model: Model, payer: Payer) -> Needed | None:
        """Return a smaller amount, as whoever would answer counts; None where it is none. Raises MoaError."""
        return None

    def fetched(self, reserved: Reservation, models: Sequence[Model]) -> Reservation:
        """Return the reservation as large as it need be, now that images which were links are here."""
        return reserved

    def admitted(self, reserved: Reservation) -> None:  # only text fits into what is granted
        """Fit the request into what was reserved."""

    def twin(self) -> Self | None:
        """Return the call of a copy of the request; None where it is too large to be worth one."""
        if is_large_request(self.request):  # type: ignore[arg-type]
            return None
        request = type(self.request)()
        request.CopyFrom(self.request)  # type: ignore[attr-defined]
        return type(self)(request)

    def modalities(self) -> frozenset[str]:
        """Return what the prompt holds: `text`, `image`, `audio`, `video`, `file`."""
        return frozenset(("text",))

    def needs(self) -> frozenset[str]:
        """Return what a model must be able to do for it, in words of capabilities."""
        return frozenset(need.capability for need in limits.needs(self.request))  # type: ignore[arg-type]

    def sticky_key(self) -> str:
        """Return what is the same for all requests of a conversation; empty where nothing is."""
        return ""

    @property
    def expected(self) -> usage_pb2.Usage:
        """What it is likely to consume, estimated: targets are compared by it."""
        return self.stake

    @property
    @abc.abstractmethod
    def stake(self) -> usage_pb2.Usage:
        """What a call costs its operator at least, should it be given up."""

    def ask(self, model: Model, paying: Reservation) -> MessageStream[M]:
        """Begin an answer by a target."""
        self.request.model, self.request.provider = model.id, model.provider
        return self.backends.ask(self.operation, self.request, model, self.caller, paying)

    def ignored(self, first: M) -> Sequence[str]:
        """Take off an answer's first message what tells which of the request's fields had no effect, and return it."""
        return ()

    @abc.abstractmethod
    def metering(self) -> Metering:
        """Return what meters the answer."""

    def way_on(self, attempts: Attempts[M], metering: Metering, *, others: bool) -> WayOn[M] | None:
        """Return how an answer goes on that breaks; `others`: whether other targets may answer. None: it does not."""
        return None

    def stopped(self, metering: Metering, came: Sequence[Any]) -> M | None:
        """Return the end of an answer that a policy stops; None where that is an error.

        Args:
            metering: What was delivered.
            came: The events of the message in which it stops: they may tell the consumption.
        """
        return None


class Whole(Generic[T]):
    """The answer of an operation that has no events of its own, as a message whose one event is its end."""

    __slots__ = ("events", "finished")

    def __init__(self, finished: T) -> None:
        self.finished = finished
        self.events = (self,)

    def WhichOneof(self, name: str) -> str:  # as an event has it
        """Return the kind of the one event."""
        return "finished"

    def HasField(self, name: str) -> bool:
        """Return whether the one event is of this kind."""
        return name == "finished"


__all__ = [
    "Ask",
    "Backends",
    "Call",
    "Carriage",
    "CountingOperation",
    "Metering",
    "Method",
    "Needed",
    "Operation",
    "Owed",
    "WayOn",
    "Whole",
]
