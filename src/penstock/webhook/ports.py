"""What the webhook needs of the landing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.errors import PenstockError
from penstock.model import Delivery, Via
from penstock.notifications import Unusable


class Intake(Protocol):
    """The way in. Every method blocks, is called from threads, and possibly from several at once."""

    def accept(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Make deliveries of one dataset durable; one bool each, True where it was seen before.

        Raises Transient when they cannot be made durable now. Accepting the same delivery again must be harmless.
        """
        ...

    def seen(self, bucket: str, keys: Sequence[str], via: Via, *, skip: Callable[[str, PenstockError], None]) -> object:
        """Take hints: stat each key and record what is there. Raises Transient when that cannot be done now.

        `skip` is told of each key that alone cannot be asked for now; the others are taken all the same.
        """
        ...

    def removed(
        self, bucket: str, keys: Sequence[str], via: Via, *, skip: Callable[[str, PenstockError], None]
    ) -> object:
        """Take hints of removals: stat each key, record what is there, and what is lost as missing. As `seen`."""
        ...

    def keep_unusable(self, parts: Sequence[Unusable]) -> int:
        """Put what no hint can be made of into quarantine, once each; returns how many were new and are kept.

        Raises Transient when that cannot be done now.
        """
        ...

    def check(self) -> None:
        """Return when deliveries can be accepted: the bucket is there and the ledger answers. Else PenstockError."""
        ...
