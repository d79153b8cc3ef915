"""What is done to a made image before it is kept: the asked-for format, and how it was made inside the file."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Any, Final

from PIL import Image, PngImagePlugin

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2
from moa.task.v1 import task_pb2
from services.common.store import object_name
from services.tasks.adapters.holding import Spooled
from services.tasks.domain.task import Task
from services.tasks.worker.sealing import Seal

_FORMATS: Final = {
    image_pb2.OUTPUT_FORMAT_PNG: ("PNG", "image/png"),
    image_pb2.OUTPUT_FORMAT_JPEG: ("JPEG", "image/jpeg"),
    image_pb2.OUTPUT_FORMAT_WEBP: ("WEBP", "image/webp"),
}
EXTENSIONS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


async def finished(
    task: Task, index: int, made: image_pb2.Image, *, provenance: bool, seal: Seal | None = None
) -> Spooled:
    """Give an output as it will be stored: in its format, saying how it was made, sealed last of all."""
    wanted = _FORMATS.get(task.what.image.output_format)
    image = made.image
    if (wanted and wanted[1] != image.mime_type) or provenance or image.mime_type not in EXTENSIONS:
        kind = wanted or ("PNG", "image/png")
        if not wanted and image.mime_type in EXTENSIONS:
            kind = next(f for f in _FORMATS.values() if f[1] == image.mime_type)
        note = _note(task, made) if provenance else ""
        image = await asyncio.to_thread(_encoded, image.data, kind, note)
    data = image.data  # each reading of the field makes a copy
    if seal is not None:
        data = await seal.sealed(data, image.mime_type, task, made)
    output = task_pb2.TaskOutput(
        index=index,
        name=object_name(task.account_id, EXTENSIONS[image.mime_type]),
        mime_type=image.mime_type,
        width=image.width,
        height=image.height,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        revised_prompt=made.revised_prompt,
    )
    if made.HasField("receipt"):
        output.receipt.CopyFrom(made.receipt)
        output.receipt.sha256 = output.sha256
    return Spooled(index, output.name, data, output)


def metadata_of(task: Task, output: task_pb2.TaskOutput) -> dict[str, str]:
    """Give what is noted beside the object: enough to make it again, and no prompt."""
    prompt = task.what.image.prompt or task.what.desk.prompt
    found = {
        "task": task.id,
        "model": task.model,
        "provider": task.provider,
        "prompt-sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        "sha256": output.sha256,
    }
    if output.HasField("receipt"):
        receipt = output.receipt
        found |= {
            "seed": str(receipt.seed),
            "steps": str(receipt.steps),
            "guidance": f"{receipt.guidance_scale:g}",
            "scheduler": receipt.scheduler,
            "revision": receipt.revision,
            "engine": receipt.engine,
        }
    return {name: value for name, value in found.items() if value}


def _note(task: Task, made: image_pb2.Image) -> str:
    seed = f"; seed {made.receipt.seed}" if made.HasField("receipt") else ""
    return f"Made by a generative model: {task.provider}/{task.model}{seed}; task {task.id}"


def _encoded(data: bytes, kind: tuple[str, str], note: str) -> media_pb2.ImageData:
    """Encode again. The note goes where the format has room for one: PNG text, else the EXIF description."""
    name, mime_type = kind
    with Image.open(io.BytesIO(data)) as opened:
        more: dict[str, Any] = {}
        image: Image.Image = opened
        if name == "JPEG":
            image = opened.convert("RGB")  # JPEG has no transparency
            more["quality"] = 95
        if note and name == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_text("Software", "moa")
            info.add_text("Description", note)
            more["pnginfo"] = info
        elif note:
            exif = Image.Exif()
            exif[0x010E] = note  # ImageDescription
            exif[0x0131] = "moa"  # Software
            more["exif"] = exif.tobytes()
        out = io.BytesIO()
        image.save(out, name, **more)
        return media_pb2.ImageData(data=out.getvalue(), mime_type=mime_type, width=image.width, height=image.height)
