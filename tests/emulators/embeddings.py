"""The clouds' embedding models, as strict as the real ones. A text's vector begins with its length and its place."""

from __future__ import annotations

import abc
import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from google.genai import types
from openai.types import EmbeddingCreateParams
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.emulators import azure, bedrock, gemini, openai, shapes
from tests.emulators.aws import AwsRefused, verify_signature
from tests.emulators.base import Emulator
from tests.emulators.script import Script

SIZES: Mapping[str, int] = {"text-embedding-3-small": 1536, "text-embedding-ada-002": 1536, "bge-m3": 1024}
TITAN, COHERE, COHERE_4 = "amazon.titan-embed-text-v2:0", "cohere.embed-multilingual-v3", "us.cohere.embed-v4:0"
_TASKS = frozenset(
    (
        *("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING"),
        *("QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY"),
    )
)


def vector(text: Any, size: int) -> list[float]:
    """Return a text's vector, or that of a list of tokens: numbers that a float of 32 bits holds."""
    return [float(len(text)), 0.5, *([0.25] * (size - 2))][:size]


def counted(texts: Sequence[Any]) -> int:
    """Return what is counted of texts: a token a letter."""
    return sum(map(len, texts))


class _Vectors(Emulator, abc.ABC):
    """What the four have in common: they answer whole, with the script's bad manners."""

    vectors: Sequence[Sequence[float]] | None = None
    """What is answered whatever is asked."""

    def _made(self, texts: Sequence[Any], size: int) -> list[list[float]]:
        if self.vectors is not None:
            return [list(each) for each in self.vectors]
        return [vector(text, size) for text in texts]

    async def _answered(self, request: web.Request, script: Script, answer: Any, **headers: str) -> web.StreamResponse:
        body = json.dumps(answer).encode()
        response = web.Response(body=body, content_type="application/json", headers=headers)
        return await self.whole(request, script, response)


class OpenAIEmbeddings(_Vectors, openai.OpenAIEmulator):
    """`POST /v1/embeddings`, with the places of its vectors shuffled, as its clients have to expect."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/v1/embeddings", self.embeddings), *super().routes()]

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """Embed."""
        try:
            self.check_key(request)
            body = await self.body_of(request)
            given = _check_openai(body)
        except openai.Refused as refused:
            return self.refusal(refused)
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            status, error = self.refusals[script.refuse]
            headers = {"Retry-After": str(script.retry_after_s)} if script.retry_after_s is not None else {}
            error = {"message": f"Words about {script.refuse}.", "param": None, **error}
            return web.json_response({"error": error}, status=status, headers=headers)
        made = self._made(given, body.get("dimensions") or SIZES[body["model"]])
        data = [
            {"object": "embedding", "index": place, "embedding": _in_form(each, body.get("encoding_format"))}
            for place, each in enumerate(made)
        ]
        answer: dict[str, Any] = {"object": "list", "data": data[::-1], "model": body["model"]}
        if script.counts is not None:
            answer["usage"] = {"prompt_tokens": counted(given), "total_tokens": counted(given)}
        return await self._answered(request, script, answer, **{"x-request-id": "req_1"})

    async def body_of(self, request: web.Request) -> Any:
        """Return the request's body."""
        return await openai.json_of(request)


def _in_form(made: list[float], form: str | None) -> Any:
    return base64.b64encode(struct.pack(f"<{len(made)}f", *made)).decode() if form == "base64" else made


def _check_openai(body: Any) -> list[Any]:
    """Return what is to be embedded, or raise Refused as the service would."""
    try:
        shapes.check(body, EmbeddingCreateParams)
    except shapes.Wrong as wrong:
        raise openai.invalid(f"Invalid: {wrong.message}.", wrong.path) from None
    model = body["model"]
    if model not in SIZES:
        raise openai.Refused(404, "Model not found.", kind="invalid_request_error", code="model_not_found")
    if "dimensions" in body and "-3-" not in model:
        raise openai.invalid("This model does not support specifying dimensions.", "dimensions")
    if body.get("dimensions", 1) > SIZES[model]:
        raise openai.invalid("Invalid value for 'dimensions'.", "dimensions")
    given = body["input"]
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if not 1 <= len(given) <= 2048 or not all(given):
        raise openai.invalid("'$.input' is invalid.", "input")
    return list(given)


class AzureEmbeddings(OpenAIEmbeddings, azure.AzureEmulator):
    """`/openai/deployments/{deployment}/embeddings`."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        path = "/openai/deployments/{deployment}/embeddings"
        return [web.post(path, self.embeddings), *azure.AzureEmulator.routes(self)]

    async def body_of(self, request: web.Request) -> Any:
        """Return the request's body as OpenAI would see it: the deployment says which model."""
        if request.match_info["deployment"] != "embedding-deployment":
            words = "The API deployment for this resource does not exist."
            raise openai.Refused(404, words, kind="", code="DeploymentNotFound")
        body = await openai.json_of(request)
        if "model" in body:
            raise openai.invalid("The deployment says which model.", "model")
        return {**body, "model": "text-embedding-3-small"}


class _Embed(BaseModel):
    """A request of a batch."""

    model_config = ConfigDict(extra="forbid")

    model: str
    content: types.Content
    taskType: str | None = None  # noqa: N815  # the wire's name
    title: str | None = None
    outputDimensionality: int | None = Field(None, ge=1, le=3072)  # noqa: N815


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    requests: list[_Embed] = Field(min_length=1, max_length=100)


class GeminiEmbeddings(_Vectors, gemini.GeminiEmulator):
    """`:batchEmbedContents`, whose answers hold no usage."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/v1beta/models/{model}:batchEmbedContents", self._embed), *super().routes()]

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        model = request.match_info["model"]
        try:
            self._check_key(request)
            if model != "gemini-embedding-001":
                raise gemini.Refused(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta.")
            body = await gemini.json_of(request)
            try:
                batch = _Batch.model_validate(body)
            except ValidationError as error:
                raise gemini.invalid(str(error)) from None
            for each in batch.requests:
                _check_gemini(each, model)
        except gemini.Refused as refused:
            return self._refusal(refused)
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            status, code, details = gemini.REFUSALS[script.refuse]
            made = gemini.Refused(status, code, f"Words about {script.refuse}.", details)
            return web.json_response({"error": made.error}, status=status)
        texts = ["".join(part.text or "" for part in each.content.parts or ()) for each in batch.requests]
        vectors = self._made(texts, batch.requests[0].outputDimensionality or 3072)
        return await self._answered(request, script, {"embeddings": [{"values": each} for each in vectors]})


def _check_gemini(asked: _Embed, model: str) -> None:
    if asked.model != f"models/{model}":
        raise gemini.invalid("The model of a request must be that of the path.")
    if asked.taskType is not None and asked.taskType not in _TASKS:
        raise gemini.invalid(f"Invalid value at 'task_type': {asked.taskType}")
    if asked.title is not None and asked.taskType != "RETRIEVAL_DOCUMENT":
        raise gemini.invalid("A title may only be given for RETRIEVAL_DOCUMENT.")
    if not all(part.text for part in asked.content.parts or ()):
        raise gemini.invalid("content is empty")


class BedrockEmbeddings(_Vectors, bedrock.BedrockEmulator):
    """`/model/{id}/invoke` of Titan's and Cohere's models."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/model/{model}/invoke", self._invoke), *super().routes()]

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        raw, model = await request.read(), request.match_info["model"]
        try:
            verify_signature(request, raw, service="bedrock")
            body = json.loads(raw)
            if model == TITAN:
                texts, size = _check_titan(body)
            elif model in (COHERE, COHERE_4):
                texts, size = _check_cohere(body, model)
            else:
                raise bedrock.invalid("The provided model identifier is invalid.")
        except AwsRefused as refused:
            self.refused.append((refused.status, str(refused)))
            return refused.response()
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            return AwsRefused(*bedrock.REFUSALS[script.refuse], f"Words about {script.refuse}.").response()
        vectors = self._made(texts, size)
        headers = {"x-amzn-requestid": "aws-req-1"}
        if script.counts is not None:
            headers["x-amzn-bedrock-input-token-count"] = str(counted(texts))
        if model == TITAN:
            one = vectors[0] if vectors else None
            titan: dict[str, Any] = {"embedding": one, "embeddingsByType": {"float": one}}
            if script.counts is not None:
                titan["inputTextTokenCount"] = counted(texts)
            return await self._answered(request, script, titan, **headers)
        cohere = {"id": "1", "texts": texts, "response_type": "embeddings_by_type", "embeddings": {"float": vectors}}
        return await self._answered(request, script, cohere, **headers)


def _check_titan(body: dict[str, Any]) -> tuple[list[str], int]:
    if not {"inputText"} <= body.keys() <= {"inputText", "dimensions", "normalize", "embeddingTypes"}:
        raise bedrock.invalid("Malformed input request: extraneous key is not permitted, please reformat your input.")
    if not body["inputText"] or len(body["inputText"]) > 50_000:
        raise bedrock.invalid("expected minLength: 1, maxLength: 50000")
    if body.get("dimensions", 1024) not in (256, 512, 1024):
        raise bedrock.invalid("dimensions is not a valid enum value")
    return [body["inputText"]], body.get("dimensions", 1024)


def _check_cohere(body: dict[str, Any], model: str) -> tuple[list[str], int]:
    known = {"texts", "input_type", "truncate", "embedding_types", "images"}
    known |= {"output_dimension", "max_tokens", "inputs"} if model == COHERE_4 else set()
    if not {"texts", "input_type"} <= body.keys() <= known:
        raise bedrock.invalid("Malformed input request: extraneous key is not permitted, please reformat your input.")
    if not 1 <= len(body["texts"]) <= 96 or not all(body["texts"]):
        raise bedrock.invalid("expected maxItems: 96")
    if body["input_type"] not in ("search_document", "search_query", "classification", "clustering", "image"):
        raise bedrock.invalid("input_type is not a valid enum value")
    if body.get("truncate", "NONE") not in ("NONE", "START", "END", "LEFT", "RIGHT"):
        raise bedrock.invalid("truncate is not a valid enum value")
    if body.get("output_dimension", 1536) not in (256, 512, 1024, 1536):
        raise bedrock.invalid("output_dimension is not a valid enum value")
    return body["texts"], body.get("output_dimension", 1024)
