"""Write a conversation by a model's chat template.

Templates are programs that come with the weights. They run as transformers runs them: in Jinja's immutable sandbox,
with `raise_exception` and `strftime_now` (transformers, `utils/chat_template_utils.py`).
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from inference.text.conversation import in_words, natively
from inference.text.conversation import takes_tools as _takes_tools
from inference.text.tools import Tool
from inference.text.turns import Turn
from services.common.errors import InvalidField, ModelMisconfigured


class Template:
    """A compiled chat template.

    Args:
        source: The template's text.
        bos: The text of the token that begins a sequence.
        eos: Likewise the one that ends it.

    Raises ModelMisconfigured when the text is no template.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError:
            raise ModelMisconfigured("the model's chat template cannot be read") from None
        self.takes_tools = takes_tools(source)
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = (), *, think: bool, goes_on: bool) -> str:
        """Return the prompt. `goes_on`: the last turn is the beginning of the answer. Raises InvalidField when the
        template refuses the conversation."""
        own = self.takes_tools
        try:
            text = self._template.render(
                messages=natively(turns) if own else in_words(turns, tools),
                tools=[tool.shown() for tool in tools] if tools and own else None,
                add_generation_prompt=not goes_on,
                enable_thinking=think,
                **self._tokens,
            )
        except Exception as error:  # the template is the model's own program; it refuses in its own words
            raise InvalidField(f"the model's chat template refuses this conversation: {error}"[:300]) from None
        return _open(text, turns[-1].content) if goes_on else text


def takes_tools(source: str) -> bool:
    """Return whether a chat template tells of tools in the form that is read here."""
    return _takes_tools(source, _environment())


def _open(text: str, beginning: str) -> str:
    """Cut what the template put after the last turn, so that the turn goes on."""
    for last in (beginning, beginning.strip()):  # some templates strip
        at = text.rfind(last)
        if last and at >= 0:
            return text[: at + len(last)]
    raise InvalidField("the model's chat template leaves out the beginning of the answer", param="messages")


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _json(value: object, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@functools.cache
def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: dt.datetime.now(dt.UTC).astimezone().strftime(form)
    return made
