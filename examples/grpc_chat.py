"""Stream a reply over gRPC: `python examples/grpc_chat.py [WORDS…]`."""

from __future__ import annotations

import os
import sys

from moa_local import connect  # isort: skip  # first: it makes the next two importable

import grpc

from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc


def main() -> None:
    words = " ".join(sys.argv[1:]) or "Hello! Who are you?"
    channel, key = connect()
    question = text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(text=words)])
    request = text_service_pb2.GenerateTextRequest(
        model=os.environ.get("MOA_MODEL", "smollm2-135m"), messages=[question], stream=True
    )
    with channel:
        for answer in text_service_pb2_grpc.TextServiceStub(channel).GenerateText(request, metadata=key):
            for event in answer.events:
                show(event)


def show(event: text_pb2.TextEvent) -> None:
    match event.WhichOneof("event"):
        case "text":
            print(event.text.text, end="", flush=True)
        case "reasoning":
            print(f"\033[2m{event.reasoning.text}\033[0m", end="", flush=True)
        case "finished":
            usage = event.finished.usage
            print(f"\n({usage.prompt_tokens} + {usage.completion_tokens} tokens)")
        case "error":
            sys.exit(f"\nthe answer broke off: {event.error.message}")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
