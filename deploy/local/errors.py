"""Why a gateway cannot start."""

from __future__ import annotations


class StackError(Exception):
    """The gateway cannot start. The message is one sentence for the person in front of the terminal."""
