"""Whether an Authorization header holds what is asked for."""

from __future__ import annotations

import hmac


def is_authorized(given: bytes, scheme: str, wanted: bytes) -> bool:
    """Whether the header is of this scheme and has `wanted`; it takes as long for whatever else of its length."""
    found, _, value = given.partition(b" ")
    same = hmac.compare_digest(value.strip(), wanted)
    return found.lower() == scheme.encode() and same
