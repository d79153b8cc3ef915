"""From Google's body to the image contract's request, for models that make images.

The last turn of the user is what is asked for: its text the prompt, its images the input. When it has no image, the
newest that the conversation holds is the one to change, so that a chat goes on from its last picture.
"""

from __future__ import annotations

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.common.errors import InvalidField, Unsupported
from services.router.dialects.google import bodies
from services.router.dialects.google.text_request import file_image
from services.router.dialects.media import image_from_base64

_SIZES = {
    "512": image_pb2.QUALITY_UNSPECIFIED,
    "1K": image_pb2.QUALITY_UNSPECIFIED,
    "2K": image_pb2.QUALITY_MEDIUM,
    "4K": image_pb2.QUALITY_HIGH,
}
"""1K is what models make when nothing is said; rows say which quality each size is. 512 is Gemini's own (`carried`)."""
_MODALITIES = {"TEXT", "IMAGE"}


def request_from(
    body: bodies.GenerateContentBody, model: str, *, stream: bool
) -> image_service_pb2.GenerateImageRequest:
    """Return the request. Raises InvalidField, Unsupported, UnsupportedMedia or TooLarge."""
    config = body.generation_config or bodies.GenerationConfig()
    _refuse(body, config)
    last = len(body.contents) - 1
    asked = body.contents[last]
    if asked.role == "model":
        raise InvalidField("the last turn must be the user's", param=f"contents[{last}].role")
    texts = _texts(asked, f"contents[{last}]")
    if body.system_instruction is not None:
        texts = [*_texts(body.system_instruction, "systemInstruction"), *texts]
    images: list[media_pb2.ImageInput] = []
    for index in range(last, -1, -1):
        images = _images(body.contents[index], f"contents[{index}]")
        if images:
            break
    picture = config.image_config or bodies.ImageConfig()
    return image_service_pb2.GenerateImageRequest(
        model=model,
        prompt="\n".join(texts),
        count=config.candidate_count or 1,
        aspect_ratio=picture.aspect_ratio or "",
        quality=_SIZES.get(picture.image_size or "", image_pb2.QUALITY_UNSPECIFIED),
        seed=config.seed,
        images=images if last >= 0 else (),
        stream=stream,
    )


def _refuse(body: bodies.GenerateContentBody, config: bodies.GenerationConfig) -> None:
    if any(tool for tool in body.tools or ()):
        raise Unsupported("this model makes images and takes no tools", param="tools")
    modalities = set(config.response_modalities or ("TEXT", "IMAGE"))
    if "IMAGE" not in modalities or modalities - _MODALITIES:
        raise Unsupported("this model answers with images", param="generationConfig.responseModalities")
    for name, value in (
        ("responseLogprobs", config.response_logprobs),
        ("responseSchema", config.response_schema),
        ("responseJsonSchema", config.response_json_schema),
        ("speechConfig", config.speech_config),
    ):
        if value:
            raise Unsupported(f"{name}: this model makes images", param=f"generationConfig.{name}")
    if config.response_mime_type not in (None, "", "text/plain"):
        raise Unsupported("this model makes images", param="generationConfig.responseMimeType")
    size = config.image_config.image_size if config.image_config else None
    if size and size not in _SIZES:
        message = f"imageSize is one of {', '.join(_SIZES)}"
        raise InvalidField(message, param="generationConfig.imageConfig.imageSize")


def _texts(content: bodies.Content, where: str) -> list[str]:
    results = []
    for index, part in enumerate(content.parts or ()):
        if part.function_call is not None or part.function_response is not None:
            raise Unsupported(f"{where}.parts[{index}]: this model takes no tools", param=f"{where}.parts[{index}]")
        if part.text and not part.thought:
            results.append(part.text)
    return results


def _images(content: bodies.Content, where: str) -> list[media_pb2.ImageInput]:
    results = []
    for index, part in enumerate(content.parts or ()):
        place = f"{where}.parts[{index}]"
        if part.inline_data is not None:
            results.append(image_from_base64(part.inline_data.data, param=f"{place}.inlineData.data"))
        elif part.file_data is not None:
            results.append(file_image(part.file_data, place))
    return results
