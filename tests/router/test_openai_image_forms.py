"""Edits and variations of images by multipart forms, in OpenAI's dialect."""

from __future__ import annotations

import pytest
import requests

from services.router.dialects.openai import image_request
from tests.router.rig import KEY, Played, picture


def multipart(*parts: bytes, boundary: str = "b") -> tuple[bytes, str]:
    body = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return body, f"multipart/form-data; boundary={boundary}"


PNG = b'name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + picture()
BAD_FORMS = {
    "not an image": (*multipart(b'name="image"; filename="a.png"\r\n\r\nhello', b'name="prompt"\r\n\r\nx'), 400),
    "no image": (*multipart(b'name="prompt"\r\n\r\nx'), 400),
    "two prompts": (*multipart(PNG, b'name="prompt"\r\n\r\nx', b'name="prompt"\r\n\r\ny'), 400),
    "a strange file": (*multipart(PNG, b'name="other"; filename="x"\r\n\r\nx'), 400),
    "another boundary": (*multipart(PNG, boundary="c"), 400),
    "no boundary": (multipart(PNG)[0], "multipart/form-data", 400),
    "cut short": (multipart(PNG)[0][:-30], "multipart/form-data; boundary=b", 400),
    "not UTF-8": (*multipart(PNG, b'name="prompt"\r\n\r\n\xff\xfe'), 400),
    "many parts": (*multipart(*[b'name="prompt"\r\n\r\nx'] * 70), 413),
    "too many images": (*multipart(*[PNG] * 17, b'name="prompt"\r\n\r\nx'), 400),
    "a heavy image": (*multipart(PNG + b"\0" * (10 * 2**20), b'name="prompt"\r\n\r\nx'), 413),
}


@pytest.mark.parametrize(("named", "model"), [(b"", "canvas"), (b"smart", "smart")])
def test_azures_path_names_the_model_of_a_form(named: bytes, model: str) -> None:
    """Where the form itself names none."""
    body, form = multipart(PNG, b'name="prompt"\r\n\r\nx', *([b'name="model"\r\n\r\n' + named] if named else []))
    assert image_request.request_from(body, form, "edit", model="canvas")[0].model == model


@pytest.mark.parametrize(("body", "form", "status"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
def test_bad_forms_are_refused(url: str, played: Played, body: bytes, form: str, status: int) -> None:
    """A form that is broken, too large or not about images is the caller's error, in OpenAI's envelope."""
    headers = {"x-api-key": KEY, "content-type": form}
    got = requests.post(f"{url}/v1/images/edits", data=body, headers=headers, timeout=20)
    assert got.status_code == status, got.text
    assert set(got.json()["error"]) == {"message", "type", "param", "code"}
    assert played.pictures == []
