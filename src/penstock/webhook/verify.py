"""Is this request from whom it says? Pure: raw headers and body in, the delivery's id out, compared in constant time.

A new scheme is one class in `schemes/` and one line in `_SCHEMES`; nothing else asks which scheme it is. Which schemes
there are, and what each one promises, stands in `penstock/verification.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from penstock.errors import SettingsError
from penstock.verification import DeliveryId, Verification
from penstock.webhook.schemes import hashed, standard, stripe, tokens
from penstock.webhook.schemes.base import Scheme, Sent
from penstock.webhook.schemes.ids import delivery_id


def verify(
    verification: Verification,
    secrets: Sequence[str],
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    now: datetime,
    *,
    dedup: DeliveryId | None = None,
) -> str:
    """Return the delivery's id of a request that is verified: `check` and `identify` in one."""
    sent = Sent(headers, body)
    check(verification, secrets, sent, now)
    return identify(verification, sent, dedup=dedup)


def check(verification: Verification, secrets: Sequence[str], sent: Sent, now: datetime) -> None:
    """Return when the request is from whom it says.

    `secrets` are values, any of them may match. Raises Unverified for everything that is not exactly right, and
    SettingsError where a secret is unset or no secret of this scheme.
    """
    scheme = _scheme(verification)
    keys = [_key(scheme, verification, secret) for secret in secrets]
    scheme.check(keys, sent, now.timestamp(), verification.tolerance)


def identify(verification: Verification, sent: Sent, *, dedup: DeliveryId | None = None) -> str:
    """The delivery's id: what `dedup` says, or else the scheme itself. Raises Unverified where it is no id.

    `sent` may have the body as it was inflated, which is another than the one that was signed.
    """
    return delivery_id(dedup or _scheme(verification).id, sent)


def sign(verification: Verification, secret: str, delivery: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers with which the sender would send `body` at `now`, lower case.

    Where a scheme's deliveries have their id in the body, `delivery` is not used. Raises SettingsError for a secret
    that cannot sign, and Unverified for an id that would not be accepted.
    """
    scheme = _scheme(verification)
    key = _key(scheme, verification, secret) if verification.scheme != "none" else b""
    if not scheme.can_sign(key):
        raise SettingsError(f"a secret of scheme {verification.scheme!r} is a public key, which cannot sign")
    return scheme.sign(key, delivery, body, int(now.timestamp()))


def usable(verification: Verification, secret: str) -> bool:
    """Whether `secret` is set and can be a secret of this scheme."""
    try:
        _key(_scheme(verification), verification, secret)
    except SettingsError:
        return False
    return True


def can_sign(verification: Verification, secret: str) -> bool:
    """Whether `secret` is usable and not a public key."""
    scheme = _scheme(verification)
    return usable(verification, secret) and scheme.can_sign(_key(scheme, verification, secret))


def new_secret(verification: Verification, random: bytes) -> str:
    """A secret for this scheme, of 32 random bytes."""
    return _scheme(verification).new_secret(random)


def sender_headers(verification: Verification) -> Mapping[str, str]:
    """The names of the headers that a sender of this scheme sends, with what each is."""
    return _scheme(verification).headers


def challenge(verification: Verification) -> str:
    """The `WWW-Authenticate` with which a request that is not verified is refused."""
    return _scheme(verification).challenge


def _key(scheme: Scheme, verification: Verification, secret: str) -> Any:
    try:
        return scheme.key(secret)
    except ValueError:
        # Not even the cause: what Python says of a value may quote it.
        raise SettingsError(f"a secret of scheme {verification.scheme!r} is unset or malformed") from None


@lru_cache(maxsize=256)
def _scheme(verification: Verification) -> Scheme:
    return _SCHEMES[verification.scheme](verification)


def _hashed(verification: Verification) -> Scheme:
    assert verification.hmac is not None
    return hashed.Hashed(verification.hmac)


_SCHEMES: Mapping[str, Callable[[Verification], Scheme]] = {
    "standard": lambda _: standard.Standard("webhook"),
    "svix": lambda _: standard.Standard("svix"),
    "stripe": lambda _: stripe.Stripe(),
    "github": lambda _: hashed.GITHUB,
    "slack": lambda _: hashed.SLACK,
    "hmac": _hashed,
    "bearer": lambda declared: tokens.Bearer(declared.header or "authorization"),
    "basic": lambda declared: tokens.Basic(declared.user),
    "none": lambda _: tokens.Nothing(),
}
