"""A token or a password with each request, or nothing: no signature, so whoever sees one request can send another."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import timedelta

from penstock.errors import Unverified
from penstock.verification import DeliveryId
from penstock.webhook.schemes.base import Scheme, Sent, match
from penstock.webhook.schemes.ids import checked

_AUTHORIZATION = "authorization"
_ID = "webhook-id"


class Bearer(Scheme):
    """`Authorization: Bearer TOKEN`, or the token alone in another header. The id is `webhook-id`, where it is sent."""

    challenge = "Bearer"
    id = DeliveryId(header=_ID)

    def __init__(self, header: str) -> None:
        self._header = header.lower()
        alone = self._header != _AUTHORIZATION
        self._kind = b"" if alone else b"bearer "
        self.headers = {header: "The token" if alone else "`Bearer ` and the token"}

    def key(self, secret: str) -> bytes:
        """Raises ValueError for a token that no header can hold."""
        return _visible(secret).encode()

    def check(self, keys: Sequence[bytes], sent: Sent, now: float, tolerance: timedelta) -> None:
        """The word Bearer may be written in any case, as HTTP says; the token may not."""
        found = sent.header(self._header)
        if found[: len(self._kind)].lower() != self._kind:
            raise Unverified
        match([_hashed(key) for key in keys], [_hashed(found[len(self._kind) :])])

    def sign(self, key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """Raises Unverified for an id that would not be accepted."""
        value = key.decode() if self._header != _AUTHORIZATION else f"Bearer {key.decode()}"
        return {_ID: checked(delivery), self._header: value}


class Basic(Scheme):
    """`Authorization: Basic`, with the base64 of user, colon and password. The id is `webhook-id`, where it is sent."""

    challenge = 'Basic realm="penstock", charset="UTF-8"'
    id = DeliveryId(header=_ID)

    def __init__(self, user: str) -> None:
        self._user = user
        self.headers = {"Authorization": "`Basic ` and the base64 of user, colon and password"}

    def key(self, secret: str) -> bytes:
        """What a sender writes behind the word Basic."""
        if not secret:
            raise ValueError("unset")
        return base64.b64encode(f"{self._user}:{secret}".encode())

    def check(self, keys: Sequence[bytes], sent: Sent, now: float, tolerance: timedelta) -> None:
        """Compared in base64, which has one form only: nothing is decoded."""
        found = sent.header(_AUTHORIZATION)
        if found[:6].lower() != b"basic ":
            raise Unverified
        match([_hashed(key) for key in keys], [_hashed(found[6:])])

    def sign(self, key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """Raises Unverified for an id that would not be accepted."""
        return {_ID: checked(delivery), _AUTHORIZATION: f"Basic {key.decode()}"}


class Nothing(Scheme):
    """Takes anybody's requests. The id is `webhook-id`, where it is sent."""

    id = DeliveryId(header=_ID)

    def __init__(self) -> None:
        self.headers = {_ID: "The delivery's id; without it, the SHA-256 of the body"}

    def check(self, keys: Sequence[object], sent: Sent, now: float, tolerance: timedelta) -> None:
        """Everything passes."""

    def sign(self, key: object, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """Raises Unverified for an id that would not be accepted."""
        return {_ID: checked(delivery)}


def _hashed(value: bytes) -> bytes:
    # Of equal length, so that comparing does not tell how long the secret is.
    return hashlib.sha256(value).digest()


def _visible(secret: str) -> str:
    if not secret or not all("\x21" <= letter <= "\x7e" for letter in secret):
        raise ValueError("not visible ASCII")
    return secret
