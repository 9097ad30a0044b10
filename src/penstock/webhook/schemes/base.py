"""What a scheme is, and what it is given: a request's raw headers and body."""

from __future__ import annotations

import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from penstock.errors import Unverified
from penstock.verification import DeliveryId

# As many signatures as a sender in rotation sends, and some; more would be work for whoever asks for it.
MOST_SIGNATURES = 16

_TIMESTAMP = re.compile(rb"[0-9]{1,12}")


class Sent:
    """A request as it came. A header's name is lower case; one that was sent twice is none at all."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self.body = body
        self._headers: dict[bytes, bytes | None] = {}
        for name, value in headers:
            key = name.lower()
            self._headers[key] = None if key in self._headers else value

    def has(self, name: str) -> bool:
        """Whether the header was sent, be it once or twice."""
        return name.lower().encode() in self._headers

    def header(self, name: str) -> bytes:
        """The header's value. Raises Unverified when it was not sent exactly once."""
        key = name.lower().encode()
        found = self._headers.get(key)
        if found is None:
            raise Unverified(f"the header {name} {'was sent twice' if key in self._headers else 'is missing'}")
        return found

    def timestamp(self, name: str, now: float, tolerance: timedelta) -> bytes:
        """The header's value, which is whole seconds since 1970 and at most `tolerance` from `now`."""
        return timely(self.header(name), now, tolerance)


class Scheme(ABC):
    """One way to sign. Keys are a scheme's own: what it makes of a secret's text.

    `headers` are what a sender must send, with what each is. `id` is where the delivery's id stands. `challenge` is
    the `WWW-Authenticate` of a refusal.
    """

    headers: Mapping[str, str]
    id: DeliveryId
    challenge: str = "Signature"

    def key(self, secret: str) -> Any:
        """The key that a secret's text is. Raises ValueError when it is none of this scheme."""
        if not secret:
            raise ValueError("unset")
        return secret.encode()

    def can_sign(self, key: Any) -> bool:
        """Whether the key signs, too; a public key does not."""
        return True

    def new_secret(self, random: bytes) -> str:
        """A secret made of 32 random bytes, in the form that the scheme wants."""
        return random.hex()

    @abstractmethod
    def check(self, keys: Sequence[Any], sent: Sent, now: float, tolerance: timedelta) -> None:
        """Raise Unverified unless one of the keys signed this."""

    @abstractmethod
    def sign(self, key: Any, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """The headers with which a sender would send the body, lower case."""


def timely(timestamp: bytes, now: float, tolerance: timedelta) -> bytes:
    """The timestamp as it was sent. Raises Unverified when it is no whole number or too far from `now`."""
    if not _TIMESTAMP.fullmatch(timestamp):
        raise Unverified("its time is no whole number of seconds")
    if abs(now - int(timestamp)) > tolerance.total_seconds():
        raise Unverified(f"its time is {int(timestamp) - now:+.0f} s off, and may be {tolerance.total_seconds():.0f} s")
    return timestamp


def match(expected: Sequence[bytes], given: Sequence[bytes]) -> None:
    """Raise Unverified unless one of those expected is given. Takes the same time whichever it is, and if none is."""
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise Unverified("no signature or token of it fits" if given else "it has no signature of this version")
