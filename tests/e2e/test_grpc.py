"""The gRPC API on the same port, from the generated stubs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from moa.common.v1 import error_pb2
from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.router.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from tests.e2e.conftest import Gateway

REPOSITORY = Path(__file__).resolve().parents[2]


def ask(words: str, model: str = "moa-tiny-chat") -> text_service_pb2.GenerateTextRequest:
    request = text_service_pb2.GenerateTextRequest(model=model, stream=True)
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=words)
    return request


def test_text_streams_with_one_start_and_one_end(gateway: Gateway) -> None:
    """The stream begins with who answers and ends with exactly one `finished`."""
    with grpc.insecure_channel(gateway.address) as channel:
        stub = text_service_pb2_grpc.TextServiceStub(channel)
        stream = stub.GenerateText(ask("Hi"), metadata=(("x-api-key", gateway.key),))
        kinds = [event.WhichOneof("event") for message in stream for event in message.events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert kinds.count("finished") == 1
    assert kinds.count("text") > 2


def test_a_whole_text_is_the_stream_in_one_message(gateway: Gateway) -> None:
    """The unary call gives what the stream gives: one start, the text, one end."""
    request = text_service_pb2.GenerateWholeTextRequest(request=ask("Hi"))
    with grpc.insecure_channel(gateway.address) as channel:
        stub = text_service_pb2_grpc.TextServiceStub(channel)
        answer = stub.GenerateWholeText(request, metadata=(("x-api-key", gateway.key),), timeout=60)
    kinds = [event.WhichOneof("event") for event in answer.events]
    assert (kinds[0], kinds[-1], kinds.count("finished")) == ("started", "finished", 1)
    assert "text" in kinds


def test_images_show_progress(gateway: Gateway) -> None:
    """Progress comes before the image; the receipt tells how it was made."""
    request = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt="파란 원", seed=1, stream=True)
    request.diffusion.steps = 5
    with grpc.insecure_channel(gateway.address) as channel:
        stub = image_service_pb2_grpc.ImageServiceStub(channel)
        stream = stub.GenerateImage(request, metadata=(("authorization", f"Bearer {gateway.key}"),))
        events = [event for message in stream for event in message.events]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.index("progress") < kinds.index("image") < kinds.index("finished")
    image = next(event.image for event in events if event.HasField("image"))
    assert image.receipt.seed == 1
    assert image.receipt.steps == 5
    assert len(image.receipt.sha256) == 64


def test_failures_carry_typed_details(gateway: Gateway) -> None:
    """A gRPC caller gets a status whose details name the reason, and no HTML or Lua in between."""
    with grpc.insecure_channel(gateway.address) as channel:
        stub = text_service_pb2_grpc.TextServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.GenerateText(ask("Hi", model="gpt-99"), metadata=(("x-api-key", gateway.key),)))
    error = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    trailers: Any = error.trailing_metadata()
    detail = error_pb2.ErrorDetail()
    status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"]).details[0].Unpack(detail)
    assert detail.reason == error_pb2.REASON_MODEL_NOT_FOUND
    assert detail.param == "model"
    assert detail.request_id


def test_health_reflection_and_catalogue(gateway: Gateway) -> None:
    """Tools can find out what is served, and whether it is well."""
    with grpc.insecure_channel(gateway.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"moa.text.v1.TextService", "moa.image.v1.ImageService"} <= set(services)
        models = catalog_service_pb2_grpc.CatalogServiceStub(channel).ListModels(
            catalog_service_pb2.ListModelsRequest(provider="local-text"), metadata=(("x-api-key", gateway.key),)
        )
    assert [(m.id, m.status) for m in models.models] == [("smollm2-135m", "absent"), ("moa-tiny-chat", "ready")]
    assert "not been fetched" in models.models[0].status_detail


def test_embeddings_reach_the_inference_service(gateway: Gateway) -> None:
    """A key's call goes through to the encoder, whose weights are not fetched in tests, and comes back in its words; a
    wrong key and an unknown model are refused before that."""

    def embed(key: str, model: str) -> grpc.StatusCode:
        request = embedding_service_pb2.EmbedTextsRequest(model=model, texts=["a fox"])
        with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as caught:
            embedding_service_pb2_grpc.EmbeddingServiceStub(channel).EmbedTexts(request, metadata=(("x-api-key", key),))
        assert ("MOA_FETCH=never" in (caught.value.details() or "")) == (
            caught.value.code() is grpc.StatusCode.UNAVAILABLE
        )
        return caught.value.code()

    assert embed(gateway.key, "all-minilm-l6-v2") is grpc.StatusCode.UNAVAILABLE
    assert embed(gateway.key, "") is grpc.StatusCode.UNAVAILABLE
    assert embed(gateway.key, "smollm2-135m") is grpc.StatusCode.INVALID_ARGUMENT
    assert embed(gateway.key, "nobody") is grpc.StatusCode.NOT_FOUND
    assert embed("moa-none", "all-minilm-l6-v2") is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("example", ["grpc_chat.py", "grpc_image.py"])
def test_the_examples_run(gateway: Gateway, example: str, tmp_path: Path) -> None:
    """The examples answer as a newcomer runs them."""
    environment = {
        **os.environ,
        "MOA_URL": gateway.url,
        "MOA_API_KEY": gateway.key,
        "PYTHONPATH": f"{REPOSITORY / 'gen'}:{REPOSITORY}",
    }
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / example)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
