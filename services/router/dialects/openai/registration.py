"""The OpenAI dialect in the router."""

from __future__ import annotations

from typing import Final

import grpc

from moa.router.v1 import openai_service_pb2, openai_service_pb2_grpc
from services.common.dialects.registrations import Method, Registration
from services.router.dialects.google import answers as google
from services.router.dialects.openai import answers, bodies, embeddings, image_bodies
from services.router.dialects.openai.image_reply import LinkedImages
from services.router.dialects.openai.servicer import OpenAIServicer
from services.router.dialects.parts import Parts


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    linked_images = LinkedImages(parts.store, parts.links)
    servicer = OpenAIServicer(parts.operations, parts.listing, linked_images, begin=parts.begin, reading=parts.reading)
    openai_service_pb2_grpc.add_OpenAIServiceServicer_to_server(servicer, server)


REGISTRATION: Final = Registration[Parts](
    contract=openai_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={
        "OpenAIService.CreateChatCompletion": Method(
            reads=bodies.ChatBody, answers=answers.ChatCompletion, streams=True
        ),
        "OpenAIService.CreateEmbedding": Method(reads=embeddings.EmbeddingBody, answers=answers.OpenAIEmbeddings),
        "OpenAIService.CreateImage": Method(reads=image_bodies.ImageBody, answers=answers.Images, streams=True),
        "OpenAIService.CreateImageEdit": Method(
            reads=image_bodies.ImageBody, answers=answers.Images, streams=True, takes_form=True
        ),
        "OpenAIService.CreateImageVariation": Method(
            reads=image_bodies.ImageBody, answers=answers.Images, takes_form=True
        ),
        # The path is Google's too; the caller's key header tells whose answer it is.
        "OpenAIService.ListModels": Method(answers=answers.OpenAIModels | google.GoogleModels),
        "OpenAIService.GetModel": Method(answers=answers.OpenAIModel | google.GoogleModel),
    },
)
