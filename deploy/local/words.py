"""What the launcher says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, TextIO

from deploy.local.stack import Stack


class Steps:
    """Prints one line a step, with the seconds since the start."""

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._began = time.monotonic()

    def tell(self, what: str) -> None:
        """Print a step."""
        print(f"  {time.monotonic() - self._began:5.1f} s  {what}", file=self._to, flush=True)


_READY = """
Moa is ready at {url} after {seconds:.1f} s.
{key}{setup}{keys} (metrics: {internal}/metrics/<process>)

Chat with smollm2-135m, token by token (any OpenAI client works the same way). {fetched}

curl -N{insecure} {url}/v1/chat/completions -H "Authorization: Bearer {secret}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "smollm2-135m", "stream": true, "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'

Text in Moa's own API:

curl{insecure} {url}/generate/text -H "X-API-Key: {secret}" \\
  -H "Content-Type: application/json" -d '{{"provider": "local-text", "model_id": "moa-tiny-chat",
  "messages": [{{"role": "user", "content": "안녕하세요!"}}]}}'

A picture, into picture.png:

curl -s{insecure} {url}/create/image -H "X-API-Key: {secret}" \\
  -H "Content-Type: application/json" \\
  -d '{{"provider": "local-image", "model_id": "moa-tiny-image", "prompt": "a red circle", "seed": 7}}' \\
  | sed 's/.*"images": *\\["\\([^"]*\\)".*/\\1/' | base64 -d > picture.png

Ctrl-C stops it.
"""
_UNTIL_THEN: Final = "until it is here the toy moa-tiny-chat answers and is named. GET /v1/models tells how far it is."
_FETCHED: Final = {
    "early": f"It is fetched in the background (93 MB,\nonce); {_UNTIL_THEN}",
    "asked": f"It is fetched when it is first\nasked for (93 MB, once); {_UNTIL_THEN}",
    "never": "Where it was not fetched before\n(MOA_FETCH=never), the toy moa-tiny-chat answers and is named.",
}
"""What becomes of the model's weights, by `MOA_FETCH`."""


def ready(stack: Stack) -> str:
    """Return the greeting, with three commands that work as pasted in any folder. The key is shown when it is made;
    none is there where the database has accounts of another host, or of a backup."""
    dev_env = stack.root / "dev.env"
    key = f"The first key, which may do everything (shown this once): {stack.api_key}\n" if stack.new_key else ""
    link = stack.first_login_url()
    setup = (
        f"Log in to the page, once and within an hour, by {link} (it asks how you will log in later)\n" if link else ""
    )
    if stack.api_key:
        keys, secret = (
            f"Its address and key for scripts: {_short(dev_env)}",
            f"$(sed -n s/^MOA_API_KEY=//p '{dev_env}')",
        )
    else:
        keys, secret = "Its database has accounts already: set MOA_API_KEY to a key of theirs", "$MOA_API_KEY"
    return _READY.format(
        setup=setup,
        keys=keys,
        fetched=_FETCHED[stack.fetches],
        url=stack.url,
        seconds=max(stack.seconds.values(), default=0.0),
        key=key,
        internal=stack.internal_url,
        insecure=" -k" if stack.url.startswith("https") else "",
        secret=secret,
    )


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
