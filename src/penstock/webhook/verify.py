"""Is this request from whom it says? Pure: raw bytes in, the delivery's id out, compared in constant time.

A new scheme is one `_Scheme` in `_SCHEMES`; nothing else here or in the app asks which scheme it is.

Schemes: `standard` is Standard Webhooks v1, symmetric (standard-webhooks.md, version 1.0.0). `github` signs the body
only, so its delivery id is not protected: who has captured a signed request can send it again under another id.
`none` takes anybody's requests.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.declarations import Verification
from penstock.errors import SettingsError, Unverified

# The specification forbids a full stop in the id: with one, the end of the id could pass for the timestamp.
_STANDARD_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,255}")
_PLAIN_ID = re.compile(r"[\x21-\x7e]{1,255}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_WHSEC = "whsec_"


@dataclass(frozen=True, kw_only=True)
class _Scheme:
    """`key` turns a secret's text into an HMAC key or raises ValueError; `headers` are what a sender must send."""

    key: Callable[[str], bytes]
    verify: Callable[[Sequence[bytes], Mapping[str, str], bytes, float, timedelta], str]
    sign: Callable[[bytes, str, bytes, int], dict[str, str]]
    id: re.Pattern[str]
    headers: Mapping[str, str]


def verify(
    verification: Verification,
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> str:
    """Return the sender's delivery id. `headers` have lower-case names, `secrets` are values, any of them may match.

    For `none` the id is the `webhook-id` header, or else the SHA-256 of the body in hex: two equal bodies are then
    one delivery. Raises Unverified for everything that is not exactly right, and SettingsError where a secret is
    unset or no secret of this scheme.
    """
    scheme = _SCHEMES[verification.scheme]
    keys = [_key(verification, secret) for secret in secrets] if verification.scheme != "none" else []
    return scheme.verify(keys, headers, body, now.timestamp(), verification.tolerance)


def sign(verification: Verification, secret: str, delivery_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers with which the sender would send `body` at `now`.

    Raises SettingsError for a secret that cannot sign, and Unverified for an id that would not be accepted.
    """
    scheme = _SCHEMES[verification.scheme]
    _id(scheme.id, delivery_id)
    key = _key(verification, secret) if verification.scheme != "none" else b""
    return scheme.sign(key, delivery_id, body, int(now.timestamp()))


def usable(verification: Verification, secret: str) -> bool:
    """Whether `secret` is set and can be a secret of this scheme."""
    try:
        _key(verification, secret)
    except SettingsError:
        return False
    return True


def sender_headers(verification: Verification) -> Mapping[str, str]:
    """The names of the headers that a sender of this scheme sends, with what each is."""
    return _SCHEMES[verification.scheme].headers


def _key(verification: Verification, secret: str) -> bytes:
    try:
        key = _SCHEMES[verification.scheme].key(secret)
    except ValueError:
        key = b""
    if not key:
        raise SettingsError(f"a secret of scheme {verification.scheme!r} is unset or malformed")
    return key


def _id(pattern: re.Pattern[str], found: str) -> str:
    if not pattern.fullmatch(found):
        raise Unverified
    return found


def _text_key(secret: str) -> bytes:
    return secret.encode()


def _standard_key(secret: str) -> bytes:
    encoded = secret.removeprefix(_WHSEC).rstrip("=")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _standard_signature(key: bytes, delivery: str, timestamp: str, body: bytes) -> bytes:
    content = f"{delivery}.{timestamp}.".encode() + body
    # hmac.digest lets another thread run for the few microseconds it takes, and may wait long for its turn again.
    return base64.b64encode(hmac.new(key, content, "sha256").digest())


def _standard_verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: timedelta
) -> str:
    delivery = _id(_STANDARD_ID, headers.get("webhook-id", ""))
    timestamp = headers.get("webhook-timestamp", "")
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > tolerance.total_seconds():
        raise Unverified
    given = [
        signature.encode(errors="replace")
        for version, _, signature in (part.partition(",") for part in headers.get("webhook-signature", "").split(" "))
        if version == "v1"
    ]
    _match([_standard_signature(key, delivery, timestamp, body) for key in keys], given)
    return delivery


def _standard_sign(key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
    signature = _standard_signature(key, delivery, str(now), body).decode()
    return {"webhook-id": delivery, "webhook-timestamp": str(now), "webhook-signature": f"v1,{signature}"}


def _github_signature(key: bytes, body: bytes) -> bytes:
    return b"sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest().encode()


def _github_verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: timedelta
) -> str:
    delivery = _id(_PLAIN_ID, headers.get("x-github-delivery", ""))
    given = headers.get("x-hub-signature-256", "").encode(errors="replace")
    _match([_github_signature(key, body) for key in keys], [given])
    return delivery


def _github_sign(key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
    return {"x-github-delivery": delivery, "x-hub-signature-256": _github_signature(key, body).decode()}


def _none_verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: timedelta
) -> str:
    if "webhook-id" in headers:
        return _id(_PLAIN_ID, headers["webhook-id"])
    return hashlib.sha256(body).hexdigest()


def _none_sign(key: bytes, delivery: str, body: bytes, now: int) -> dict[str, str]:
    return {"webhook-id": delivery}


def _match(expected: Sequence[bytes], given: Sequence[bytes]) -> None:
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise Unverified


_SCHEMES: Mapping[str, _Scheme] = {
    "standard": _Scheme(
        key=_standard_key,
        verify=_standard_verify,
        sign=_standard_sign,
        id=_STANDARD_ID,
        headers={
            "webhook-id": "The delivery's id: visible ASCII without a full stop, 255 characters at most",
            "webhook-timestamp": "When it was sent, in whole seconds since 1970",
            "webhook-signature": "`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`; several with spaces",
        },
    ),
    "github": _Scheme(
        key=_text_key,
        verify=_github_verify,
        sign=_github_sign,
        id=_PLAIN_ID,
        headers={
            "X-GitHub-Delivery": "The delivery's id",
            "X-Hub-Signature-256": "`sha256=` and the HMAC-SHA256 of the body, in hex",
        },
    ),
    "none": _Scheme(
        key=_text_key,
        verify=_none_verify,
        sign=_none_sign,
        id=_PLAIN_ID,
        headers={"webhook-id": "The delivery's id; without it, the SHA-256 of the body"},
    ),
}
