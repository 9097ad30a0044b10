"""Stripe: `Stripe-Signature: t=SECONDS,v1=HEX,…`, an HMAC-SHA256 of `t.body`. Several v1 while a secret is rolled."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import timedelta

from penstock.errors import Unverified
from penstock.verification import DeliveryId
from penstock.webhook.schemes.base import MOST_SIGNATURES, Scheme, Sent, match, timely

_HEADER = "Stripe-Signature"


class Stripe(Scheme):
    """The id is the event's, which is signed with the body."""

    id = DeliveryId(field="id")

    def __init__(self) -> None:
        self.headers = {
            _HEADER: "`t=` and whole seconds since 1970, `,v1=` and the HMAC-SHA256 of `t.body` in hex; several v1"
        }

    def check(self, keys: Sequence[bytes], sent: Sent, now: float, tolerance: timedelta) -> None:
        """One time, and one good v1 of several; versions that are not known are passed over."""
        parts = [part.partition(b"=") for part in sent.header(_HEADER).split(b",")]
        times = [value for name, _, value in parts if name == b"t"]
        # With a space, a proxy made one header of two.
        if len(times) != 1 or len(parts) > MOST_SIGNATURES or any(b" " in name for name, _, _ in parts):
            raise Unverified("it has no time, several, or too many signatures, or two headers were made one")
        timestamp = timely(times[0], now, tolerance)
        given = [value for name, _, value in parts if name == b"v1"]
        match([_v1(key, timestamp, sent.body) for key in keys], given)

    def sign(self, key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """The delivery's id is in the body."""
        return {_HEADER.lower(): f"t={now},v1={_v1(key, str(now).encode(), body).decode()}"}


def _v1(key: bytes, timestamp: bytes, body: bytes) -> bytes:
    made = hmac.new(key, timestamp + b".", "sha256")
    made.update(body)
    return made.hexdigest().encode()
