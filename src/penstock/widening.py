"""What becomes of a column when other types come than it has. Pure; types in DuckDB's words.

A column gets the narrowest type that holds what it has and what comes: a larger whole number, a DECIMAL with more
digits, DOUBLE, TIMESTAMP; and where there is none VARCHAR, or JSON for what is nested. Never the other way: a column
that is wider than what comes stays so. So nothing is rounded or cut by being written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEXT = "VARCHAR"
JSON = "JSON"
_ALIASES = {
    "TEXT": TEXT,
    "STRING": TEXT,
    "INT": "INTEGER",
    "LONG": "BIGINT",
    "SHORT": "SMALLINT",
    "REAL": "FLOAT",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMETZ": "TIME WITH TIME ZONE",
}
# Of values that are all NULL, whatever is said of their type.
NOTHING = {"NULL", '"NULL"'}
# From narrow to wide, with the bits of the least and of the greatest.
_WHOLE = {
    "TINYINT": (7, 7),
    "UTINYINT": (0, 8),
    "SMALLINT": (15, 15),
    "USMALLINT": (0, 16),
    "INTEGER": (31, 31),
    "UINTEGER": (0, 32),
    "BIGINT": (63, 63),
    "UBIGINT": (0, 64),
    "HUGEINT": (127, 127),
    "UHUGEINT": (0, 128),
}
_DECIMAL = re.compile(r"^DECIMAL\((\d+), ?(\d+)\)$")
_MOST_DIGITS = 38
_FRACTIONS = {"FLOAT", "DOUBLE"}
_ZONED = "TIMESTAMP WITH TIME ZONE"
_MOMENTS = {"DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMP_NS", _ZONED}
# Up to here a DOUBLE has every whole number, and of fractions this many digits.
_WHOLE_IN_DOUBLE = 2**53
_BITS_IN_DOUBLE = 53
_DIGITS_IN_DOUBLE = 15


@dataclass(frozen=True, kw_only=True)
class Widening:
    """The type a column gets; where a value lies outside -`within` to `within`, it would not survive: VARCHAR then."""

    kind: str
    within: str | None = None


def widening(there: str, wanted: str) -> Widening | None:
    """What a column of type `there` becomes when values of type `wanted` come; None when it stays as it is.

    Whether it may stay can depend on those values: `bound`.
    """
    there, wanted = _plain(there), _plain(wanted)
    if there in (wanted, TEXT) or wanted in NOTHING:
        return None
    kind = wanted if there in NOTHING else _joined(there, wanted)
    if kind == there:
        return None
    return Widening(kind=kind, within=bound(kind, there))


def bound(there: str, wanted: str) -> str | None:
    """How far from 0 a value of type `wanted` may lie that a column of type `there` is to hold; None for any."""
    there, wanted = _plain(there), _plain(wanted)
    if there != "DOUBLE":
        return None
    if wanted in _WHOLE:
        return str(_WHOLE_IN_DOUBLE) if max(_WHOLE[wanted]) > _BITS_IN_DOUBLE else None
    decimal = _DECIMAL.match(wanted)
    if not decimal or int(decimal[1]) <= _DIGITS_IN_DOUBLE:
        return None
    whole = _DIGITS_IN_DOUBLE - int(decimal[2])
    return "1" + "0" * whole if whole >= 0 else "0." + "0" * (-whole - 1) + "1"


def joined(kind: str | None, other: str) -> str:
    """The type for a column that is of type `kind` here and `other` there."""
    found = widening(kind, other) if kind is not None else Widening(kind=other)
    return found.kind if found is not None else kind or other


def compares_otherwise(there: str, wanted: str, *, by_order: bool = False) -> bool:
    """Whether values of type `wanted` would be compared as texts that they are not, by being written to `there`.

    1.0 is 1 as a number and not as a text; `by_order`: nor is 9 less than 10.
    """
    there, wanted = _plain(there), _plain(wanted)
    if there in NOTHING or wanted in NOTHING or there == wanted:
        return False
    if there == TEXT:
        fraction = wanted in _FRACTIONS or _DECIMAL.match(wanted)
        return bool(fraction or (by_order and wanted in _WHOLE))
    return joined(there, wanted) in (TEXT, JSON)


def nested(kind: str) -> bool:
    """Whether values of this type have others in them."""
    return bool(re.search(r"^(STRUCT|MAP|UNION)\b|\]$", kind.upper()))


def _joined(there: str, wanted: str) -> str:
    if {there, wanted} <= _WHOLE.keys():
        least, most = (max(pair) for pair in zip(_WHOLE[there], _WHOLE[wanted], strict=True))
        return next((kind for kind, (low, high) in _WHOLE.items() if low >= least and high >= most), TEXT)
    if _number(there) and _number(wanted):
        if {there, wanted} == {"FLOAT", "SMALLINT"} or (there == "FLOAT" and max(_WHOLE.get(wanted, (99,))) < 24):
            return "FLOAT"
        return "DOUBLE" if _FRACTIONS & {there, wanted} else _decimal(there, wanted)
    if {there, wanted} <= _MOMENTS:
        # A date is its midnight, and what has no zone is UTC, as everywhere here; digits below a microsecond go.
        return there if there in ("TIMESTAMP", _ZONED) else _ZONED if wanted == _ZONED else "TIMESTAMP"
    return JSON if all(nested(kind) or kind == JSON for kind in (there, wanted)) else TEXT


def _decimal(there: str, wanted: str) -> str:
    """The DECIMAL that holds both, of which one is a DECIMAL; VARCHAR where it would have too many digits."""
    digits = [_digits(there), _digits(wanted)]
    whole, places = (max(pair) for pair in zip(*digits, strict=True))
    return f"DECIMAL({whole + places},{places})" if whole + places <= _MOST_DIGITS else TEXT


def _digits(kind: str) -> tuple[int, int]:
    if found := _DECIMAL.match(kind):
        return int(found[1]) - int(found[2]), int(found[2])
    return len(str(2 ** max(_WHOLE[kind]))), 0


def _number(kind: str) -> bool:
    return kind in _WHOLE or kind in _FRACTIONS or bool(_DECIMAL.match(kind))


def _plain(kind: str) -> str:
    upper = kind.upper()
    if found := _DECIMAL.match(upper):
        return f"DECIMAL({found[1]},{found[2]})"
    return _ALIASES.get(upper, kind if nested(kind) else upper)
