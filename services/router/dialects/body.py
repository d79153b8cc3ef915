"""Read a JSON body into a typed model, with errors that name the field (`services.common.body`)."""

from services.common.body import UnknownField, field_error, leniently, parse

__all__ = ["UnknownField", "field_error", "leniently", "parse"]
