"""What a service needs to verify keys and to reserve, grow and settle quota: without a call, while a grant is warm.

`amounts`, `permissions` and `priorities` are shared by both sides of the quota contract: auth reads them too.
"""

from services.quota_client._abandoned import AbandonedCalls
from services.quota_client._admission import Admission
from services.quota_client._provider_keys import StoredKeys
from services.quota_client._reservation import Reservation, costless
from services.quota_client._settling import Recording
from services.quota_client._task_reservation import TaskReservation
from services.quota_client._verified_key import Remaining, VerifiedKey

__all__ = [
    "AbandonedCalls",
    "Admission",
    "Recording",
    "Remaining",
    "Reservation",
    "StoredKeys",
    "TaskReservation",
    "VerifiedKey",
    "costless",
]
