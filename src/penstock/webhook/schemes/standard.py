"""Standard Webhooks 1.0.0 and Svix, which is the same under other header names.

Signed is `id.timestamp.body`. `v1` is HMAC-SHA256 with a secret `whsec_` and base64; `v1a` is ed25519, verified with
a public key `whpk_` and base64 of its 32 bytes, and signed with a private key `whsk_` (a seed of 32 bytes, or those
and the public key behind them). A secret verifies its own version only.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from penstock.errors import Unverified
from penstock.verification import DeliveryId
from penstock.webhook.schemes.base import MOST_SIGNATURES, Scheme, Sent, match

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# The specification forbids a full stop in the id: with one, the end of the id could pass for the timestamp.
_ID = re.compile(rb"[\x21-\x2d\x2f-\x7e]{1,255}")
_SECRET, _PUBLIC, _PRIVATE = "whsec_", "whpk_", "whsk_"
_KEY_BYTES = 32
# Each of these hashes the whole body with each key.
_MOST_PUBLIC = 4


@dataclass(frozen=True, kw_only=True)
class Key:
    """A shared secret, or a public key with or without its private one."""

    shared: bytes = field(default=b"", repr=False)
    public: Ed25519PublicKey | None = field(default=None, repr=False)
    private: Ed25519PrivateKey | None = field(default=None, repr=False)


class Standard(Scheme):
    """`name` begins the three headers: `webhook` or `svix`."""

    def __init__(self, name: str) -> None:
        self._id, self._timestamp, self._signature = f"{name}-id", f"{name}-timestamp", f"{name}-signature"
        self.id = DeliveryId(header=self._id, required=True)
        self.headers = {
            self._id: "The delivery's id: visible ASCII without a full stop, 255 characters at most",
            self._timestamp: "When it was sent, in whole seconds since 1970",
            self._signature: (
                "`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`, or `v1a,` and that of its ed25519 "
                "signature; several with spaces"
            ),
        }

    def key(self, secret: str) -> Key:
        """Raises ValueError for what is no base64, or of the wrong length."""
        if secret.startswith((_PUBLIC, _PRIVATE)):
            return _asymmetric(secret)
        shared = _base64(secret.removeprefix(_SECRET))
        if not shared:
            raise ValueError("empty")
        return Key(shared=shared)

    def can_sign(self, key: Key) -> bool:
        """A public key cannot."""
        return bool(key.shared) or key.private is not None

    def new_secret(self, random: bytes) -> str:
        """The form that the specification prescribes: `whsec_` and 24 to 64 bytes in base64."""
        return _SECRET + base64.b64encode(random).decode()

    def check(self, keys: Sequence[Key], sent: Sent, now: float, tolerance: timedelta) -> None:
        """One good signature of several is enough; versions that are not known are passed over."""
        delivery = sent.header(self._id)
        if not _ID.fullmatch(delivery):
            raise Unverified(f"{self._id} is no id")
        head = delivery + b"." + sent.timestamp(self._timestamp, now, tolerance) + b"."
        parts = [part.partition(b",") for part in sent.header(self._signature).split(b" ")]
        shared = [given for version, _, given in parts if version == b"v1"]
        public = [given for version, _, given in parts if version == b"v1a"]
        # Base64 has no comma: with one, a proxy made one header of two.
        joined = any(b"," in given for given in (*shared, *public))
        if joined or len(parts) > MOST_SIGNATURES or len(public) > _MOST_PUBLIC:
            raise Unverified("it has too many signatures, or two headers of them were made one")
        if any(key.public is not None and _verifies(key.public, head + sent.body, public) for key in keys):
            return
        match([_v1(key.shared, head, sent.body) for key in keys if key.shared], shared)

    def sign(self, key: Key, delivery: str, body: bytes, now: int) -> dict[str, str]:
        """Raises Unverified for an id that would not be accepted."""
        named = delivery.encode(errors="replace")
        if not _ID.fullmatch(named):
            raise Unverified("that is no id of this scheme")
        head = b"%s.%d." % (named, now)
        if key.private is not None:
            signature = b"v1a," + base64.b64encode(key.private.sign(head + body))
        else:
            signature = b"v1," + _v1(key.shared, head, body)
        return {self._id: delivery, self._timestamp: str(now), self._signature: signature.decode()}


def _v1(key: bytes, head: bytes, body: bytes) -> bytes:
    # hmac.digest lets another thread run for the few microseconds it takes, and may wait long for its turn again.
    made = hmac.new(key, head, "sha256")
    made.update(body)
    return base64.b64encode(made.digest())


def _verifies(key: Ed25519PublicKey, content: bytes, given: Sequence[bytes]) -> bool:
    from cryptography.exceptions import InvalidSignature

    for encoded in given:
        try:
            signature = base64.b64decode(encoded, validate=True)
            # The last letter has bits that mean nothing: the same signature in other letters is none.
            if base64.b64encode(signature) == encoded:
                key.verify(signature, content)
                return True
        except (ValueError, InvalidSignature):
            continue
    return False


def _asymmetric(secret: str) -> Key:
    # Loaded when a source has such a key: it takes longer than all else here.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    if secret.startswith(_PUBLIC):
        return Key(public=Ed25519PublicKey.from_public_bytes(_base64(secret.removeprefix(_PUBLIC))))
    given = _base64(secret.removeprefix(_PRIVATE))
    private = Ed25519PrivateKey.from_private_bytes(given[:_KEY_BYTES])
    public = private.public_key()
    if given[_KEY_BYTES:] not in (b"", public.public_bytes_raw()):
        raise ValueError("the two halves of a private key do not belong together")
    return Key(public=public, private=private)


def _base64(text: str) -> bytes:
    """Padding may be missing. Raises ValueError for anything else that is wrong."""
    encoded = text.rstrip("=")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
