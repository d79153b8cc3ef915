"""The documented predictions API, in the shape that its public clients parse."""

from services.tasks.dialects.predictions.render import callback

__all__ = ["callback"]
