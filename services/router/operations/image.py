"""Images, declared: what is asked for, what is reserved, and that they are charged on delivery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest, GenerateImageResponse
from moa.quota.v1 import quota_pb2
from moa.router.v1 import catalog_service_pb2
from services.catalogue import Catalogue, Cost, Model, Provider, fit, today
from services.common.errors import MoaError, Unsupported
from services.common.estimate import tokens_of
from services.quota_client.amounts import Amount
from services.router.domain import bounds
from services.router.domain.answer import Answer
from services.router.domain.attempts import Attempts
from services.router.domain.operation import Call, Carriage, Metering, Method, Needed, Operation, Owed
from services.router.domain.terms import Ask, Begun

_INPUT_IMAGE_TOKENS: Final = 6240
"""What one image that is sent along is read as at most, by owners who price it in tokens (OpenAI, high fidelity)."""

ImageAnswer = Answer[GenerateImageResponse]


def _carriage(request: GenerateImageRequest, model: Model, provider: Provider) -> Carriage:
    """Images come in a stream; of a provider that is asked several times, each may be slow."""
    timeouts = provider.timeouts
    idle_s = max(timeouts.idle_s, timeouts.connect_s + timeouts.first_token_s)
    waiting = _queued if request.stream else None
    return Carriage(msgspec.structs.replace(timeouts, idle_s=idle_s), waiting=waiting)


def _noted(request: GenerateImageRequest) -> Mapping[str, Any]:
    return {"gen_ai.output.type": "image", "gen_ai.request.choice.count": max(1, request.count)}


def _started(model: Model, ignored: Sequence[str] = ()) -> GenerateImageResponse:
    started = image_pb2.ImageStarted(provider=model.provider, model=model.id, ignored=ignored)
    return GenerateImageResponse(events=[image_pb2.ImageEvent(started=started)])


def _queued() -> GenerateImageResponse:
    return GenerateImageResponse(events=[image_pb2.ImageEvent(queued=image_pb2.Queued())])


IMAGE: Final = Operation[GenerateImageRequest, GenerateImageResponse](
    name="image",
    quota=quota_pb2.OPERATION_IMAGE,
    kind=catalog_service_pb2.MODEL_KIND_IMAGE,
    stream=Method(name="GenerateImage", request=GenerateImageRequest, response=GenerateImageResponse),
    whole=None,
    carriage=_carriage,
    span="generate_content",
    noted=_noted,
    started=_started,
)


class ImageCall(Call[GenerateImageRequest, GenerateImageResponse]):
    """One request for images."""

    operation = IMAGE

    def __init__(self, request: GenerateImageRequest) -> None:
        super().__init__(request)
        self._nearest: list[str] = []
        """Which of the request's values are not used as they are, with those that are."""

    def check(self, model: Model) -> None:
        """As `Call.check`. A size or ratio that the model does not make becomes the nearest one that it makes."""
        request = self.request
        self._name_operation()
        self._nearest = fit(request, model)
        for changed in self._nearest if request.strict else ():
            name, _, value = changed.partition("=")
            message = f"the nearest that model {model.id!r} makes is {value}, and this request ignores nothing (strict)"
            raise Unsupported(message, param=name)
        super().check(model)

    def check_request(self) -> None:
        """As `Call.check_request`."""
        self._name_operation()
        super().check_request()

    def _name_operation(self) -> None:
        request = self.request
        if request.operation == image_pb2.OPERATION_UNSPECIFIED:
            request.operation = image_pb2.OPERATION_EDIT if request.images else image_pb2.OPERATION_GENERATE

    def check_able(self, model: Model) -> None:
        """As `Call.check_able`. Models of one's own know no vendor's fields."""
        super().check_able(model)
        for name in self.request.vendor.names if self.request.strict and model.load is not None else ():
            message = f"{name} has no effect on model {model.id!r}, and this request ignores nothing (strict)"
            raise Unsupported(message, param=name)

    def images(self) -> Sequence[tuple[str, media_pb2.ImageInput]]:
        """As `Call.images`."""
        given = [(f"images[{index}]", image) for index, image in enumerate(self.request.images)]
        return [*given, ("mask", self.request.mask)] if self.request.HasField("mask") else given

    def amount(self, models: Sequence[Model]) -> Needed:
        """As `Call.amount`: by the dearest image of the size and quality that are asked for, and what is sent along."""
        request = self.request
        request.count = max(1, request.count)
        read = len(request.prompt.encode()) + request.vendor.ByteSize() + len(request.images) * _INPUT_IMAGE_TOKENS
        day = today()
        image = max((price.image_nano(request) for model in models if (price := model.price(day))), default=0)
        nano_usd = bounds.Rates.of(models, read, day).nano_usd(read, 0) + request.count * image
        need = Amount(images=request.count, nano_usd=nano_usd)
        return Needed(need, need)

    def cost(self, catalogue: Catalogue) -> Cost:
        """As `Call.cost`: by size and quality."""
        return catalogue.image_cost(self.request)

    def modalities(self) -> frozenset[str]:
        """As `Call.modalities`."""
        return frozenset(("text", "image") if self.request.images else ("text",))

    @property
    def expected(self) -> usage_pb2.Usage:
        """As `Call.expected`."""
        return usage_pb2.Usage(prompt_tokens=tokens_of(self.request.prompt), images=max(1, self.request.count))

    @property
    def stake(self) -> usage_pb2.Usage:
        """As `Call.stake`."""
        return usage_pb2.Usage(images=self.request.count)

    def ignored(self, first: GenerateImageResponse) -> Sequence[str]:
        """As `Call.ignored`. Who says nothing of it has read no field that only a vendor knows."""
        if not first.events or not first.events[0].HasField("started"):
            return [*self._nearest, *self.request.vendor.names]
        names = list(first.events[0].started.ignored)
        del first.events[0]
        return [*self._nearest, *names]

    def metering(self) -> ImageMetering:
        """As `Call.metering`."""
        return ImageMetering()

    def way_on(self, attempts: Attempts[GenerateImageResponse], metering: Metering, *, others: bool) -> Anew | None:
        """As `Call.way_on`."""
        return Anew(attempts, self.ask) if others else None


CALL: Final = ImageCall


class ImageMetering(Metering):
    """Charges for images that were handed to the caller."""

    def __init__(self) -> None:
        super().__init__()
        self._delivered = 0

    def handed(self, count: int) -> None:
        """As `Metering.handed`."""
        self._delivered += count

    def handed_message(self, message: GenerateImageResponse) -> None:
        """As `Metering.handed_message`."""
        self._delivered += sum(event.HasField("image") for event in message.events)

    @property
    def is_due(self) -> bool:
        """As `Metering.is_due`."""
        return self._delivered < self.usage.images

    def consumed(self, *, ended: bool) -> usage_pb2.Usage | None:
        """As `Metering.consumed`."""
        if not self._delivered:
            return None
        self.usage.images = self._delivered
        return self.usage

    def abandoned(self, *, ended: bool) -> Owed:
        """As `Metering.abandoned`."""
        if ended:
            return Owed(self.usage, known=True)
        return Owed(usage_pb2.Usage(images=self._delivered, exact=True))

    def goes_on(self) -> None:
        """As `Metering.goes_on`: another target makes all of them."""
        self.usage = usage_pb2.Usage()


class Anew:
    """Another target makes the images, as long as none was shown. Waiting and progress are no part of the answer."""

    def __init__(self, attempts: Attempts[GenerateImageResponse], ask: Ask[GenerateImageResponse]) -> None:
        self._attempts = attempts
        self._ask = ask
        self._shown = False

    def saw_messages(self, messages: Iterable[GenerateImageResponse]) -> None:
        """As `WayOn.saw_messages`."""
        for message in messages:
            for event in message.events:
                if (kind := event.WhichOneof("event")) == "error":
                    break
                self._shown = self._shown or kind == "image" or kind == "text"

    def may_help(self, model: Model, error: MoaError) -> bool:
        """As `WayOn.may_help`."""
        return not self._shown and self._attempts.may_go_on(model, error)

    async def go_on(self, model: Model, error: MoaError) -> Begun[GenerateImageResponse] | None:
        """As `WayOn.go_on`."""
        try:
            begun = await self._attempts.begin(self._ask)
        except MoaError:
            return None
        first = _started(begun.model)
        first.events.extend(begun.first.events)
        return begun._replace(first=first)
