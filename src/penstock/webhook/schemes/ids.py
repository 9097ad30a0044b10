"""A delivery's id, by which it is told from every other of its source."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from penstock.errors import Unverified
from penstock.verification import DeliveryId
from penstock.webhook.schemes.base import Sent

_ID = re.compile(r"[\x21-\x7e]{1,255}")


def delivery_id(where: DeliveryId, sent: Sent) -> str:
    """The id that the sender gave, or the SHA-256 of the body in hex.

    Raises Unverified when a header holds something that is no id (visible ASCII, 255 characters at most), when it was
    sent twice, and when a required one is missing.
    """
    if where.header and (where.required or sent.has(where.header)):
        return checked(sent.header(where.header).decode("latin-1"))
    found = _field(where.field, sent.body) if where.field else None
    return found or hashlib.sha256(sent.body).hexdigest()


def checked(found: str) -> str:
    """The id itself. Raises Unverified when it is none."""
    if not _ID.fullmatch(found):
        raise Unverified("its id is none: visible ASCII, 255 characters at most")
    return found


def _field(path: str, body: bytes) -> str | None:
    try:
        value: Any = json.loads(body)
        for name in path.split("."):
            value = value[name]
    # Deep nesting is a RecursionError; what is no object, or lacks the name, is one of the others.
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        # A number of thousands of digits is no id, and turning it into text is refused by Python itself.
        return str(value) if abs(value) < 10**100 else None
    return value if isinstance(value, str) and _ID.fullmatch(value) else None
