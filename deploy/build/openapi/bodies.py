"""What the raw bodies of the dialects hold: the models that read them, and the shapes of their answers.

A method whose body is typed in its contract needs no entry. Answers are rendered as plain objects, so their shapes
stand here; `tests/openapi` holds real answers against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from services.router.dialects.google import bodies as google
from services.router.dialects.google import embeddings as google_embeddings
from services.router.dialects.native import bodies as native
from services.router.dialects.openai import bodies as openai
from services.router.dialects.openai import embeddings as openai_embeddings
from services.router.dialects.openai import image_bodies
from services.tasks.dialects import desk
from services.tasks.dialects import tasks as image_tasks
from services.tasks.dialects.predictions import servicer as predictions

Whole = Annotated[int, Meta(ge=0)]

_ROUTER: Final = "moa.router.v1."
_TASK: Final = "moa.task.v1."

REQUESTS: Final[Mapping[str, type[Struct]]] = {
    f"{_ROUTER}NativeService.GenerateText": native.TextBody,
    f"{_ROUTER}NativeService.CreateImage": native.ImageBody,
    f"{_ROUTER}NativeService.EditImage": native.ImageBody,
    f"{_ROUTER}OpenAIService.CreateChatCompletion": openai.ChatBody,
    f"{_ROUTER}OpenAIService.CreateEmbedding": openai_embeddings.EmbeddingBody,
    f"{_ROUTER}OpenAIService.CreateImage": image_bodies.ImageBody,
    f"{_ROUTER}OpenAIService.CreateImageEdit": image_bodies.ImageBody,
    f"{_ROUTER}OpenAIService.CreateImageVariation": image_bodies.ImageBody,
    f"{_ROUTER}GoogleService.GenerateContent": google.Body,
    f"{_ROUTER}GoogleService.StreamGenerateContent": google.Body,
    f"{_ROUTER}GoogleService.CountTokens": google.CountBody,
    f"{_ROUTER}GoogleService.EmbedContent": google_embeddings.EmbedBody,
    f"{_ROUTER}GoogleService.BatchEmbedContents": google_embeddings.BatchBody,
    f"{_TASK}ImageTaskService.CreateImageTask": image_tasks.Body,
    f"{_TASK}DeskTaskService.CreateDeskTask": desk.Body,
    f"{_TASK}PredictionService.CreatePrediction": predictions.Body,
    f"{_TASK}PredictionService.CreateVersionPrediction": predictions.Body,
}
"""The model of each raw request body."""

FORMS: Final = frozenset({f"{_ROUTER}OpenAIService.CreateImageEdit", f"{_ROUTER}OpenAIService.CreateImageVariation"})
"""Methods that take a multipart form of the same fields, with `image` and `mask` as files."""

TASKS: Final = tuple(
    f"{_TASK}{name}"
    for name in (
        "TaskService.CreateTask",
        "ImageTaskService.CreateImageTask",
        "DeskTaskService.CreateDeskTask",
        "PredictionService.CreatePrediction",
        "PredictionService.CreateVersionPrediction",
    )
)
"""Methods that make tasks."""

ANSWERED_ONCE: Final = (
    "Names the request, so that it can be sent again: the same request under the same key is done and charged once, "
    "and answered alike for 24 hours."
)
CREATED_ONCE: Final = (
    "Names the request: sent again under the same key it gives the same task, as long as that is kept."
)

STREAMS: Final = frozenset(
    {
        f"{_ROUTER}NativeService.GenerateText",
        f"{_ROUTER}NativeService.CreateImage",
        f"{_ROUTER}NativeService.EditImage",
        f"{_ROUTER}OpenAIService.CreateChatCompletion",
        f"{_ROUTER}OpenAIService.CreateImage",
        f"{_ROUTER}OpenAIService.CreateImageEdit",
        f"{_ROUTER}GoogleService.StreamGenerateContent",
        f"{_TASK}PredictionService.StreamPrediction",
        f"{_TASK}TaskService.StreamTask",
    }
)
"""Methods that can answer with server-sent events."""

FILES: Final = frozenset({f"{_ROUTER}FilesService.GetFile"})
"""Methods that answer with a file."""

KEYLESS: Final = frozenset(
    {*FILES, f"{_TASK}DeskTaskService.CheckDeskHealth", f"{_TASK}DeskTaskService.GetDeskInfo"}
    | {f"moa.account.v1.AccountService.{name}" for name in ("SignUp", "LogIn")}
)
"""Methods that need no key."""
SESSION_ENDS: Final = frozenset({"moa.account.v1.AccountService.LogOut"})
"""Methods that read a session's token where one is sent, and need none."""


class UsageMetadata(Struct, rename="camel"):
    """Tokens, as Google counts them."""

    prompt_token_count: Whole
    candidates_token_count: Whole
    total_token_count: Whole


class NativeText(Struct, rename={"usage_metadata": "usageMetadata"}):
    """What the model said: with `include_reasoning` also `reasoning`, with tools `tool_calls`, refused `refusal`."""

    response: str
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    model_id: str
    provider: str
    usage_metadata: UsageMetadata


class NativeImages(Struct):
    """The images, base64. A model that looks at an image gives none, and `response`."""

    status: Literal["success"]
    images: list[str]
    prompt: str
    model_id: str
    provider: str


class ChatUsage(Struct):
    """Tokens, as OpenAI counts them."""

    prompt_tokens: Whole
    completion_tokens: Whole
    total_tokens: Whole


class ChatChoice(Struct):
    """One candidate."""

    index: Whole
    message: dict[str, Any]
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(Struct):
    """One answer."""

    id: str
    object: Literal["chat.completion"]
    created: Whole
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class ImageDatum(Struct, omit_defaults=True):
    """One image: a link, or base64."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None


class Images(Struct):
    """The images."""

    created: Whole
    data: list[ImageDatum]
    usage: dict[str, Any]


class OpenAIModel(Struct):
    """A model. `status`, with `percent` or `detail`, stands with the gateway's own models only."""

    id: str
    object: Literal["model"]
    created: Whole
    owned_by: str
    status: Literal["ready", "loading", "absent"] = "ready"
    percent: Whole = 0
    detail: str = ""


class OpenAIModels(Struct):
    """The models."""

    object: Literal["list"]
    data: list[OpenAIModel]


class Candidate(Struct, rename="camel"):
    """One candidate: parts of text, images or calls."""

    content: dict[str, Any]
    index: Whole


class GenerateContentResponse(Struct, rename="camel"):
    """One answer."""

    candidates: list[Candidate]
    usage_metadata: UsageMetadata
    model_version: str
    response_id: str


class TokenCount(Struct, rename="camel"):
    """The prompt's tokens."""

    total_tokens: Whole


class GoogleModel(Struct, rename="camel"):
    """A model."""

    name: str
    supported_generation_methods: list[str]


class GoogleModels(Struct, rename="camel"):
    """A page of models."""

    models: list[GoogleModel]


class OpenAIEmbedding(Struct):
    """A vector; in base64 little-endian floats of 32 bits."""

    object: Literal["embedding"]
    index: Whole
    embedding: list[float] | str


class PromptUsage(Struct):
    """What was read."""

    prompt_tokens: Whole
    total_tokens: Whole


class OpenAIEmbeddings(Struct):
    """The vectors, in the order of the input."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: PromptUsage


class ContentEmbedding(Struct):
    """A vector."""

    values: list[float]


class EmbedContentResponse(Struct):
    """The vector."""

    embedding: ContentEmbedding


class BatchEmbedContentsResponse(Struct):
    """The vectors, in the order of the requests."""

    embeddings: list[ContentEmbedding]


ANSWERS: Final[Mapping[str, Any]] = {
    f"{_ROUTER}NativeService.GenerateText": NativeText,
    f"{_ROUTER}NativeService.CreateImage": NativeImages,
    f"{_ROUTER}NativeService.EditImage": NativeImages,
    f"{_ROUTER}OpenAIService.CreateChatCompletion": ChatCompletion,
    f"{_ROUTER}OpenAIService.CreateEmbedding": OpenAIEmbeddings,
    f"{_ROUTER}OpenAIService.CreateImage": Images,
    f"{_ROUTER}OpenAIService.CreateImageEdit": Images,
    f"{_ROUTER}OpenAIService.CreateImageVariation": Images,
    f"{_ROUTER}OpenAIService.ListModels": OpenAIModels | GoogleModels,
    f"{_ROUTER}OpenAIService.GetModel": OpenAIModel | GoogleModel,
    f"{_ROUTER}GoogleService.GenerateContent": GenerateContentResponse,
    f"{_ROUTER}GoogleService.StreamGenerateContent": list[dict[str, Any]],
    f"{_ROUTER}GoogleService.CountTokens": TokenCount,
    f"{_ROUTER}GoogleService.EmbedContent": EmbedContentResponse,
    f"{_ROUTER}GoogleService.BatchEmbedContents": BatchEmbedContentsResponse,
    f"{_ROUTER}GoogleService.ListModels": GoogleModels,
    f"{_ROUTER}GoogleService.GetModel": GoogleModel,
}
"""The shape of each raw answer; of a method that is not here, any object."""

DEGRADED: Final = frozenset({f"{_TASK}DeskTaskService.CheckDeskHealth"})
"""Operations that answer 503, with the same body, when a part is down."""
