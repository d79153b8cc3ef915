"""What a request asks of whatever pays for it, wherever the quota was set aside."""

from __future__ import annotations

from services.quota_client._verified_key import VerifiedKey
from services.quota_client.amounts import Amount


class Payment:
    """Quota that was set aside for one request, and whose it is."""

    __slots__ = ()

    amount: Amount
    verified_key: VerifiedKey

    @property
    def held(self) -> Amount:
        """What is set aside in all."""
        return self.amount

    @property
    def tokens(self) -> int:
        """Tokens set aside in all. 0 for a task, which pays by images."""
        return self.held.tokens

    @property
    def images(self) -> int:
        """Images set aside."""
        return self.amount.images

    @property
    def account_id(self) -> str:
        """The account that pays."""
        return self.verified_key.account_id

    @property
    def team_id(self) -> str:
        """The team of the account; empty when it is in none."""
        return self.verified_key.team_id

    @property
    def key_id(self) -> str:
        """The key that asked."""
        return self.verified_key.key_id
