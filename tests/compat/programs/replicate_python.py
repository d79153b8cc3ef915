"""Replicate's client for Python."""

from __future__ import annotations

import rig
from replicate.client import Client
from replicate.exceptions import ReplicateError


def images(question) -> list:
    """The picture is read as the client's file; of a link without TLS the client makes none."""
    made = Client(api_token=question.key, base_url=question.url).run(question.model, input={"prompt": "a tree"})
    files = made if isinstance(made, list) else [made]
    return [rig.picture(rig.fetched(each) if isinstance(each, str) else each.read()) for each in files]


def task(question) -> str:
    """A prediction is made, waited for and listed."""
    client = Client(api_token=question.key, base_url=question.url)
    made = client.models.predictions.create(question.model, input={"prompt": "a tree"})
    made.wait()
    assert made.id in [each.id for each in client.predictions.list().results], made.id
    return made.status


def failure(error) -> int | None:
    return error.status if isinstance(error, ReplicateError) else None


rig.serve(failure=failure, images=images, task=task)
