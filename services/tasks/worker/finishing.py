"""What is done to a made image before it is kept: the asked-for format, and how it was made inside the file."""

from __future__ import annotations

import asyncio
import hashlib
import io
import zlib
from typing import Any, Final

from PIL import Image

from moa.image.v1 import image_pb2
from moa.task.v1 import task_pb2
from services.common.store import object_name
from services.tasks.adapters.queue import Spooled
from services.tasks.adapters.upstream import MadeImage
from services.tasks.domain.task import Task
from services.tasks.worker.sealing import Seal

_FORMATS: Final = {
    image_pb2.OUTPUT_FORMAT_PNG: ("PNG", "image/png"),
    image_pb2.OUTPUT_FORMAT_JPEG: ("JPEG", "image/jpeg"),
    image_pb2.OUTPUT_FORMAT_WEBP: ("WEBP", "image/webp"),
}
EXTENSIONS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_PNG_HEADER: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_HEADER_END: Final = 33
_AT_ONCE: Final = 2
"""Images that are decoded or signed at once: decoded, one takes many times its size."""


class Finisher:
    """Brings outputs, of images and of desks, into the form in which they are stored.

    Args:
        provenance: Whether they say how they were made.
        seal: Signs that; none: it is not signed.
    """

    def __init__(self, *, provenance: bool = False, seal: Seal | None = None) -> None:
        self._provenance = provenance
        self._seal = seal
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def finish(self, task: Task, made: MadeImage) -> tuple[Spooled, bytes]:
        """Return an output as it will be stored, in its format, saying how it was made, sealed last of all; its bytes.

        Raises what `Seal.sealed` raises.
        """
        what = task.what
        made = await self._formatted(task, what, made)
        if self._seal is not None:
            edited = bool(what.image.images or what.desk.initial_image_url)
            async with self._turns:
                made.data = await self._seal.sealed(made, task, edited=edited)
        output = task_pb2.TaskOutput(
            index=made.index,
            name=object_name(task.account_id, EXTENSIONS[made.mime_type]),
            mime_type=made.mime_type,
            width=made.width,
            height=made.height,
            size_bytes=len(made.data),
            sha256=await asyncio.to_thread(_digest, made.data),
            revised_prompt=made.revised_prompt,
        )
        if made.receipt is not None:
            output.receipt.CopyFrom(made.receipt)
            output.receipt.sha256 = output.sha256
        return Spooled(made.index, output.name, output), made.data

    async def _formatted(self, task: Task, what: task_pb2.TaskWork, made: MadeImage) -> MadeImage:
        wanted = _FORMATS.get(what.image.output_format)
        if wanted is None and made.mime_type in EXTENSIONS:
            wanted = next(known for known in _FORMATS.values() if known[1] == made.mime_type)
        name, mime_type = wanted or ("PNG", "image/png")
        as_it_is = made.mime_type == mime_type
        if as_it_is and not self._provenance:
            return made
        note = _note(task, made) if self._provenance else ""
        if as_it_is and made.data.startswith(_PNG_HEADER):
            made.data = _with_text(made.data, {"Software": "moa", "Description": note})
            return made
        async with self._turns:
            return await asyncio.to_thread(_encoded, made, name, mime_type, note)


def metadata_of(task: Task, output: task_pb2.TaskOutput) -> dict[str, str]:
    """Return what is noted beside the object: enough to make it again, and no prompt."""
    what = task.what
    prompt = what.image.prompt or what.desk.prompt
    results = {
        "task": task.id,
        "model": task.model,
        "provider": task.provider,
        "prompt-sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        "sha256": output.sha256,
    }
    if output.HasField("receipt"):
        receipt = output.receipt
        results |= {
            "seed": str(receipt.seed),
            "steps": str(receipt.steps),
            "guidance": f"{receipt.guidance_scale:g}",
            "scheduler": receipt.scheduler,
            "revision": receipt.revision,
            "engine": receipt.engine,
        }
    return {name: value for name, value in results.items() if value}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _note(task: Task, made: MadeImage) -> str:
    seed = f"; seed {made.receipt.seed}" if made.receipt is not None else ""
    return f"Made by a generative model: {task.provider}/{task.model}{seed}; task {task.id}"


def _with_text(data: bytes, texts: dict[str, str]) -> bytes:
    """Put text behind a PNG's header (PNG 3rd edition, 11.3.3.4): nothing is decoded, and no pixel changes."""
    chunks = b""
    for keyword, text in texts.items():
        chunk = b"iTXt" + keyword.encode("ascii") + b"\0\0\0\0\0" + text.encode()
        chunks += (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    whole = memoryview(data)
    return b"".join((whole[:_PNG_HEADER_END], chunks, whole[_PNG_HEADER_END:]))


def _encoded(made: MadeImage, name: str, mime_type: str, note: str) -> MadeImage:
    """Encode again. The note goes where the format has room for one: PNG text, else the EXIF description."""
    with Image.open(io.BytesIO(made.data)) as opened:
        more: dict[str, Any] = {}
        image: Image.Image = opened
        if name == "JPEG":
            image = opened.convert("RGB")  # JPEG has no transparency
            more["quality"] = 95
        if note and name != "PNG":
            exif = Image.Exif()
            exif[0x010E] = note  # ImageDescription
            exif[0x0131] = "moa"  # Software
            more["exif"] = exif.tobytes()
        out = io.BytesIO()
        image.save(out, name, **more)
        made.width, made.height = image.size
    made.data, made.mime_type = out.getvalue(), mime_type
    if note and name == "PNG":
        made.data = _with_text(made.data, {"Software": "moa", "Description": note})
    return made
