"""Make a picture as a task and follow it, surviving broken connections: `python examples/task_watch.py "a red circle"`.

Reads MOA_URL and MOA_API_KEY (`.moa/dev.env` after `make run`). Needs the stubs' wheel (`make stubs`), or
`PYTHONPATH=gen`.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

import grpc

from moa.image.v1 import image_service_pb2
from moa.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc


def main(prompt: str) -> None:
    key = (("x-api-key", os.environ["MOA_API_KEY"]),)
    with grpc.insecure_channel(urlsplit(os.environ["MOA_URL"]).netloc) as channel:
        stub = task_service_pb2_grpc.TaskServiceStub(channel)
        image = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt=prompt)
        request = task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image))
        task = stub.CreateTask(request, metadata=key).task
        print(task.id)
        seen, ended = 0, False
        while not ended:
            watch = task_service_pb2.WatchTaskRequest(id=task.id, after_sequence=seen)
            try:
                for answer in stub.WatchTask(watch, metadata=key):
                    for event in answer.events:
                        seen = event.sequence
                        ended = show(event)
            except grpc.RpcError as broken:
                if broken.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                print("connection lost; coming back")


def show(event: task_pb2.TaskEvent) -> bool:
    kind = event.WhichOneof("event")
    if kind == "progress":
        print(f"  {event.progress.stage} {event.progress.step}/{event.progress.steps}")
    elif kind == "output":
        print(f"  {event.output.link}")
    else:
        print(f"  {kind}")
    return kind in ("succeeded", "failed", "cancelled")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "a red circle")
