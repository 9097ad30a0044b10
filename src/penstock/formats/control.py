"""Control files: what a sender says of an object in another one beside it. Pure."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from penstock.errors import Unreadable

# Of a control file more than this is not read.
LARGEST = 1_000_000
# The name of a value that stands there alone.
ROWS = "rows"

_SIGN = re.compile("[=:]")
# The sum of DOUBLEs depends on the order in which they are added.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


def parsed(content: bytes) -> dict[str, Any]:
    """A JSON object's values, or those of lines `name=value` or `name: value`, or one number, which is `rows`.

    Raises Unreadable, for more than LARGEST bytes too.
    """
    if len(content) > LARGEST:
        raise Unreadable(f"it has more than {LARGEST:,} bytes")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    if not text:
        raise Unreadable("it is empty")
    if text.startswith("{"):
        return _of_json(text)
    if (number := _number(text)) is not None:
        return {ROWS: number}
    found: dict[str, Any] = {}
    for line in filter(str.strip, text.splitlines()):
        sign = _SIGN.search(line)
        name, _, value = line.partition(sign[0]) if sign else ("", "", "")
        if not name.strip():
            raise Unreadable("it is no JSON object, no lines like name=value or name: value, and no number")
        found[name.strip()] = value.strip()
    return found


def equal(found: Any, said: Any) -> bool:
    """Whether an aggregate is what the control file says; numbers are compared as numbers, however they are written.

    Integers and decimals must be the very same, a DOUBLE so but for a relative 1e-9.
    """
    if found is None or said is None or isinstance(found, bool) or isinstance(said, bool):
        return bool(found == said) or (isinstance(found, bool) and str(said).strip().lower() == str(found).lower())
    if isinstance(found, int | float | Decimal):
        number = said if isinstance(said, int | float | Decimal) else _number(str(said))
        if number is None:
            return False
        if isinstance(found, float):
            return math.isclose(found, float(number), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        return bool(found == number)
    return str(found) == str(said)


def _of_json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise Unreadable("it begins with { and is no JSON object") from None
    assert isinstance(found, dict)
    return found


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and "_" not in text else None
