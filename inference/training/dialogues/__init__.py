"""Dialogues in English and Korean, written by a program, that teach moa-tiny-chat all it knows."""

from __future__ import annotations

from inference.training.dialogues.generator import Message, Turn, dialogue, turn

__all__ = ["Message", "Turn", "dialogue", "turn"]
