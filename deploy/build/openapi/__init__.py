"""The OpenAPI document of the whole REST surface, made from the contracts and the dialects' typed bodies."""

from deploy.build.openapi.document import document

__all__ = ["document"]
