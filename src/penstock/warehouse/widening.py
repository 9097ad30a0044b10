"""What becomes of a column when the schema asks for another type than the table has. Pure; types in DuckDB's words.

The lattice: whole numbers into larger whole numbers, numbers into DOUBLE, DATE into TIMESTAMP, and anything into
VARCHAR. Never the other way: a table that is wider than a schema stays so and takes the narrower values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEXT = "VARCHAR"
_ALIASES = {"TEXT": TEXT, "STRING": TEXT, "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE"}
_SMALL = {"TINYINT", "UTINYINT"}
_MIDDLE = _SMALL | {"SMALLINT", "USMALLINT"}
_LARGE = _MIDDLE | {"INTEGER", "UINTEGER"}
_NARROWER = {
    "SMALLINT": _SMALL,
    "INTEGER": _MIDDLE,
    "BIGINT": _LARGE,
    "HUGEINT": _LARGE | {"BIGINT", "UBIGINT"},
    "DOUBLE": _LARGE | {"BIGINT", "UBIGINT", "HUGEINT", "FLOAT"},
    "TIMESTAMP": {"DATE"},
    "TIMESTAMP WITH TIME ZONE": {"DATE"},
}
_NUMBERS = {*_NARROWER, *_LARGE, "UBIGINT", "FLOAT"} - {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE"}
_DECIMAL = re.compile(r"^DECIMAL\((\d+), ?(\d+)\)$")
# Up to here a DOUBLE has every whole number, and of fractions this many digits.
_WHOLE_IN_DOUBLE = 2**53
_DIGITS_IN_DOUBLE = 15


@dataclass(frozen=True, kw_only=True)
class Widening:
    """The type a column gets; where a value lies outside -`within` to `within`, it would not survive: VARCHAR then."""

    kind: str
    within: str | None = None


def widening(there: str, wanted: str) -> Widening | None:
    """What a column of type `there` becomes for a schema of type `wanted`; None when it stays as it is."""
    there, wanted = _plain(there), _plain(wanted)
    if there in (wanted, TEXT):
        return None
    if wanted == TEXT:
        return Widening(kind=TEXT)
    decimal = _DECIMAL.match(there)
    if wanted == "DOUBLE" and decimal:
        whole = _DIGITS_IN_DOUBLE - int(decimal[2])
        bound = "1" + "0" * whole if whole >= 0 else "0." + "0" * (-whole - 1) + "1"
        return Widening(kind=wanted, within=None if int(decimal[1]) <= _DIGITS_IN_DOUBLE else bound)
    if there in _NARROWER.get(wanted, ()):
        large = wanted == "DOUBLE" and there in ("BIGINT", "UBIGINT", "HUGEINT")
        return Widening(kind=wanted, within=str(_WHOLE_IN_DOUBLE) if large else None)
    # Else 5 would become true, without a word.
    if there == "BOOLEAN" and (wanted in _NUMBERS or _DECIMAL.match(wanted)):
        return Widening(kind=TEXT)
    return None


def nested(kind: str) -> bool:
    """Whether values of this type have others in them."""
    return bool(re.search(r"^(STRUCT|MAP|UNION)\b|\]$", kind.upper()))


def _plain(kind: str) -> str:
    return _ALIASES.get(kind.upper(), kind.upper())
