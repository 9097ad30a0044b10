"""What the webhook needs of the landing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.model import Delivery, Via


class Intake(Protocol):
    """The way in. Every method blocks, is called from threads, and possibly from several at once."""

    def accept(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Make deliveries of one dataset durable; one bool each, True where it was seen before.

        Raises Transient when they cannot be made durable now. Accepting the same delivery again must be harmless.
        """
        ...

    def seen(self, bucket: str, keys: Sequence[str], via: Via) -> object:
        """Take hints: stat each key and record what is there. Raises Transient when that cannot be done now."""
        ...

    def check(self) -> None:
        """Return when store and ledger answer. Raises Transient (StoreUnavailable, LedgerUnavailable) otherwise."""
        ...
