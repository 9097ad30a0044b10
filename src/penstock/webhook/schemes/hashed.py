"""HMAC over a template, in one header: any sender's own way, GitHub's and Slack's.

GitHub and `{body}` alone sign neither time nor id: who has captured a request can send it again, under another id
where that stands in a header.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from datetime import timedelta

from penstock.errors import Unverified
from penstock.verification import DeliveryId, Hmac
from penstock.webhook.schemes.base import Scheme, Sent, match
from penstock.webhook.schemes.ids import checked

_MEANINGS = {"hex": "in hex", "base64": "in base64"}


class Hashed(Scheme):
    """`how` says what is signed; `id` is where the delivery's id stands, if not in the header that `how` names."""

    def __init__(self, how: Hmac, *, id: DeliveryId | None = None) -> None:
        self._how = how
        self._parts = how.parts()
        self._signs_id = any(kind == "id" for kind, _ in self._parts)
        between = "".join(text for kind, text in self._parts[1:-1] if kind == "text")
        # What ends an id in the signed text may not stand in it.
        self._barred = frozenset(between)
        self.id = id or DeliveryId(header=how.id_header, required=bool(how.id_header))
        self.headers = {
            **({how.id_header: "The delivery's id"} if how.id_header else {}),
            **({how.timestamp_header: "When it was sent, in whole seconds since 1970"} if how.timestamp_header else {}),
            how.header: (
                f"{f'`{how.prefix}` and the' if how.prefix else 'The'} HMAC-{how.algorithm.upper()} of "
                f"`{how.signed}`, {_MEANINGS[how.encoding]}"
            ),
        }

    def check(self, keys: Sequence[bytes], sent: Sent, now: float, tolerance: timedelta) -> None:
        """The header is compared as a whole: prefix, letters and their case."""
        how = self._how
        timestamp = sent.timestamp(how.timestamp_header, now, tolerance) if how.timestamp_header else b""
        delivery = self._bounded(sent.header(how.id_header).decode("latin-1")) if self._signs_id else b""
        given = sent.header(how.header)
        match([self._signature(key, timestamp, delivery, sent.body) for key in keys], [given])

    def sign(self, key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """Raises Unverified for an id that would not be accepted."""
        how = self._how
        named = self._bounded(delivery) if how.id_header else b""
        timestamp = str(now)
        return {
            **({how.id_header.lower(): delivery} if how.id_header else {}),
            **({how.timestamp_header.lower(): timestamp} if how.timestamp_header else {}),
            how.header.lower(): self._signature(key, timestamp.encode(), named, body).decode(),
        }

    def _bounded(self, delivery: str) -> bytes:
        if self._signs_id and self._barred.intersection(delivery):
            raise Unverified
        return checked(delivery).encode()

    def _signature(self, key: bytes, timestamp: bytes, delivery: bytes, body: bytes) -> bytes:
        values = {"timestamp": timestamp, "id": delivery, "body": body}
        made = hmac.new(key, digestmod=self._how.algorithm)
        for kind, text in self._parts:
            made.update(text.encode() if kind == "text" else values[kind])
        encoded = made.hexdigest().encode() if self._how.encoding == "hex" else base64.b64encode(made.digest())
        return self._how.prefix.encode() + encoded


GITHUB = Hashed(Hmac(header="X-Hub-Signature-256", prefix="sha256=", id_header="X-GitHub-Delivery"))
SLACK = Hashed(
    Hmac(
        header="X-Slack-Signature",
        prefix="v0=",
        signed="v0:{timestamp}:{body}",
        timestamp_header="X-Slack-Request-Timestamp",
    ),
    id=DeliveryId(field="event_id"),
)
