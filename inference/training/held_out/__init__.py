"""Questions that no template makes, and a judge: how the text model answers what people ask in their own words."""

from __future__ import annotations

from inference.training.held_out.judge import Half, Question, outcome, questions, right, shares

__all__ = ["Half", "Question", "outcome", "questions", "right", "shares"]
