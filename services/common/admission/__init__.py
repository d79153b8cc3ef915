"""Admission as the router sees it: keys verified and quota reserved without a call, while a grant is warm."""

from services.common.admission.admission import Admission
from services.common.admission.held import Held
from services.common.admission.identity import Identity, Remaining
from services.common.admission.reservation import Reservation
from services.common.admission.vanished import VanishedCallers

__all__ = ["Admission", "Held", "Identity", "Remaining", "Reservation", "VanishedCallers"]
