"""Hold an answer to a JSON Schema or to calls of tools: at each step only tokens that can still lead to a valid one are
allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from inference.text.tools import Tools, any_of, grammar
from services.common.errors import InvalidField

_FORM: Final = "response_format"
_OPTIONS: Any = {"whitespace_flexible": False}

MAX_SCHEMA_BYTES = 32 << 10
"""Largest schema. Up to it any compiles within some seconds in a worker (the worst found: 1,000 optional properties,
1.4 s on a busy core), and a step takes a quarter of a second at most (a constant of 30,000 characters)."""


class Grammars:
    """Compiles schemas for one tokenizer.

    Args:
        tokenizer: The model's, with the tokens that end an answer.
        size: Width of the model's logits, which may be more than the tokenizer knows.
    """

    def __init__(self, tokenizer: LLTokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size

    def compiled(self, schema: str) -> Constraint:
        """Compile a schema, at the start of its document. Raises InvalidField for one that cannot be enforced.

        No white space between tokens: where it is free, a small model at a high temperature writes nothing else.
        """
        if len(schema.encode()) > MAX_SCHEMA_BYTES:
            raise InvalidField(f"a schema has at most {MAX_SCHEMA_BYTES >> 10} KiB", param=_FORM)
        try:
            compiled = LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)
        except ValueError as error:
            raise InvalidField(f"the schema cannot be used: {error}"[:300], param=_FORM) from None
        return self._begun(compiled, _FORM)

    def choosing(self, choices: Sequence[str]) -> Constraint:
        """Compile an answer that is one of several words. Raises InvalidField for too many."""
        written = f"%llguidance {{}}\nstart: {any_of(choices)}\n"
        if len(written.encode()) > MAX_SCHEMA_BYTES:
            raise InvalidField(f"the choices have at most {MAX_SCHEMA_BYTES >> 10} KiB together", param=_FORM)
        return self._begun(written, _FORM)

    def calling(self, tools: Tools, schema: str | None, choices: Sequence[str] = ()) -> Constraint:
        """Compile an answer that may call tools, at its start; `schema` or `choices` hold one that calls none.

        Raises InvalidField for schemas that cannot be enforced.
        """
        written = grammar(tools, schema, choices)
        if len(written.encode()) > MAX_SCHEMA_BYTES:
            raise InvalidField(f"the tools' schemas have at most {MAX_SCHEMA_BYTES >> 10} KiB together", param="tools")
        return self._begun(written, "tools")

    def _begun(self, written: str, param: str) -> Constraint:
        """Return the constraint at its start. Raises InvalidField for one that cannot be begun."""
        failed, faults = LLMatcher.validate_grammar_with_warnings(written, self._tokenizer)
        if failed:
            raise InvalidField(f"the schema cannot be used: {faults[0] if faults else ''}"[:300], param=param)
        made = Constraint(LLMatcher(self._tokenizer, written, log_level=0), self._size, param)
        made.copy().allowed()  # one that no document begins fails here, before anything is generated
        return made


class Constraint:
    """Where one answer is in its document."""

    def __init__(self, matcher: LLMatcher, size: int, param: str) -> None:
        self._matcher = matcher
        self._size = size
        self._param = param

    def copy(self) -> Constraint:
        """Return another answer's constraint, at the same place."""
        return Constraint(self._matcher.deep_copy(), self._size, self._param)

    def allowed(self) -> NDArray[np.bool_]:
        """Return which tokens may come next, (vocabulary,) of booleans; at least one.

        Raises InvalidField when the schema allows no document, or following it takes more than the library's bounds.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little", count=self._size).astype(np.bool_)
        if self._matcher.is_error():  # it then allows the end, wherever it is
            raise InvalidField("the schema allows no value here, or is too large; simplify it", param=self._param)
        return mask

    def accept(self, token: int) -> None:
        """Go on by a token that was allowed."""
        self._matcher.consume_token(token)
