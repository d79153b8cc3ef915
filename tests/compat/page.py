"""Write the table of clients of `docs/testing.md`: `python -m tests.compat.page`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.compat import environments
from tests.compat.client import Client
from tests.compat.clients import CLIENTS

PAGE: Final = Path("docs/testing.md")
BEGIN, END = "<!-- clients: written by python -m tests.compat.page -->", "<!-- end of clients -->"
_SPEAKS: Final = {
    "openai": "OpenAI",
    "responses": "Responses",
    "compatible": "OpenAI",
    "google": "Google",
    "anthropic": "Anthropic",
    "replicate": "Replicate",
}


def table() -> str:
    """Return the table of clients, in Markdown."""
    lines = ["| Client | Version | Speaks | Asked | Claude's thoughts in its loops |", "|---|---|---|---|---|"]
    for client in CLIENTS:
        asked = list(dict.fromkeys(each for scenarios in client.scenarios.values() for each in scenarios))
        version = (
            f"{client.replays}, its calls" if client.replays else environments.version(client.lock, client.package)
        )
        names = f"{client.name} | `{client.package}` {version} | {_SPEAKS[client.dialect]}"
        lines.append(f"| {names} | {', '.join(asked)} | {_thoughts(client, asked)} |")
    return "\n".join(lines)


def _thoughts(client: Client, asked: list[str]) -> str:
    kept = [each for each in client.loops if each in asked and each not in client.forgets]
    lost = [each for each in client.loops if each in asked and each in client.forgets]
    if kept and lost:
        return f"handed back; in {', '.join(lost)} not"
    return "handed back" if kept else "not handed back" if lost else ""


def written(page: str) -> str:
    """Return the page with its table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
