"""Write the tables of `docs/errors.md` from the code: `python -m deploy.build.errors_page`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from google.rpc import code_pb2

from deploy.build.messages import Message, messages
from deploy.build.rendered import body_sentences, pattern_sentences
from gateway.script import NOT_ASCII, SENTENCES
from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common.errors import RULES, InvalidField, word

PAGE: Final = Path("docs/errors.md")
BEGIN: Final = "<!-- errors: written by python -m deploy.build.errors_page -->"
END: Final = "<!-- end of errors -->"

_IMPERATIVE: Final = re.compile(
    r"(ask|choose|create|give|leave|log|lower|make|name|put|raise|revoke|say|send|set|simplify|start|try|use|wait)\b"
)
"""How a next step begins."""
_BLAMES: Final = {
    error_pb2.BLAME_REQUEST: "the request",
    error_pb2.BLAME_ACCOUNT: "the key or account",
    error_pb2.BLAME_UPSTREAM: "the provider",
    error_pb2.BLAME_GATEWAY: "the gateway",
    error_pb2.BLAME_CALLER: "the caller",
}


def next_step(message: Message) -> str:
    """Return what a caller can do: what the message itself ends with, else what its reason says."""
    before, semicolon, last = message.template.rpartition("; ")
    if semicolon and before and _IMPERATIVE.match(last):
        return last
    return RULES[message.reason].next_step


def reasons() -> str:
    """Return the table of reasons."""
    lines = ["| reason | HTTP | gRPC | whose | may pass by itself | next step |", "|---|---|---|---|---|---|"]
    for reason, rule in RULES.items():
        passing = "yes" if rule.passing else "no"
        status = code_pb2.Code.Name(rule.grpc)
        lines.append(
            f"| `{word(reason)}` | {rule.http} | {status} | {_BLAMES[rule.blame]} | {passing} | {rule.next_step} |"
        )
    return "\n".join(lines)


def every(listed: list[Message]) -> str:
    """Return the table of messages."""
    by: dict[tuple[Reason.ValueType, str], set[str]] = {}
    for message in listed:
        by.setdefault((message.reason, message.template), set()).add(message.source)
    lines = ["| reason | message | next step | from |", "|---|---|---|---|"]
    for (reason, template), sources in sorted(by.items()):
        step = next_step(Message(reason=reason, template=template, source=""))
        lines.append(f"| `{word(reason)}` | {_cell(template)} | {_cell(step)} | {', '.join(sorted(sources))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def written(page: str) -> str:
    """Return the page with its tables as they should be. Raises ValueError for a page without their place."""
    before, begins, rest = page.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not begins or not ends:
        raise ValueError(f"{PAGE} has no place for its tables")
    edge = [Message(reason=reason, template=text, source="edge") for reason, text in SENTENCES.items()]
    edge.append(Message(reason=InvalidField.reason, template=NOT_ASCII, source="edge"))
    of_bodies = [
        Message(reason=InvalidField.reason, template=text, source="common")
        for text in (*body_sentences(), *pattern_sentences())
    ]
    tables = f"## Reasons\n\n{reasons()}\n\n## Messages\n\n{every([*edge, *of_bodies, *messages()])}"
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
