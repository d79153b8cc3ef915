"""The object store: where made images and uploads lie, and the signed links to them.

An S3 bucket when one is configured, a folder otherwise; both behave alike.
"""

from services.common.store.links import Links
from services.common.store.model import ObjectInfo, Opened, Store
from services.common.store.names import object_name, owner_of
from services.common.store.settings import StoreSettings, identity_of, links_of, store_of

__all__ = [
    "Links",
    "ObjectInfo",
    "Opened",
    "Store",
    "StoreSettings",
    "identity_of",
    "links_of",
    "object_name",
    "owner_of",
    "store_of",
]
