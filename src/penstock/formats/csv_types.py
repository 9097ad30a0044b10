"""Which types a CSV's columns have, after DuckDB's look: none that would lose a digit, or that is a guess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from penstock.formats.csv_scan import reading
from penstock.formats.numbers import FRACTION, GROUPED, GROUPED_FRACTION, WHOLE
from penstock.machine_faults import raise_machine_fault
from penstock.quoting import literal

# Of more columns than these, one expression serves all.
_NARROW = 60
# Where a DOUBLE begins to skip whole numbers.
_EXACT = 2**53
_LEADING_ZERO = r"\s*[+-]?0[0-9].*"
_POINTED = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)\s*"
_DOUBTFUL_POINT = r"\s*[+-]?[1-9][0-9]{0,2}\.[0-9]{3}\s*"
_DOUBTFUL_COMMA = r"\s*[+-]?[1-9][0-9]{0,2},[0-9]{3}\s*"

_COUNTS = {
    "filled": "@ IS NOT NULL",
    "whole": f"regexp_full_match(@, {literal(WHOLE)})",
    "zero": f"regexp_full_match(@, {literal(_LEADING_ZERO)}) OR contains(@, '_') OR starts_with(@, '0x')",
    "lossy": f"(length(@) > 15 AND regexp_full_match(@, {literal(_POINTED)}) AND abs(TRY_CAST(@ AS DOUBLE)) > {_EXACT})"
    " OR (contains(lower(@), 'e') AND isinf(TRY_CAST(@ AS DOUBLE)))",
    "pointed": f"contains(@, '.') AND regexp_full_match(@, {literal(_POINTED)})",
    "doubtful_point": f"contains(@, '.') AND regexp_full_match(@, {literal(_DOUBTFUL_POINT)})",
    "comma": f"contains(@, ',') AND regexp_full_match(@, {literal(FRACTION)})",
    "doubtful_comma": f"contains(@, ',') AND regexp_full_match(@, {literal(_DOUBTFUL_COMMA)})",
    "grouped": f"contains(@, '.') AND regexp_full_match(@, {literal(GROUPED['found'])})",
    "grouped_once": f"contains(@, '.') AND regexp_full_match(@, {literal(GROUPED['declared'])})",
    "thousands": f"contains(@, ',') AND regexp_full_match(@, {literal(GROUPED['point'])})",
    "thousands_pointed": f"contains(@, ',') AND regexp_full_match(@, {literal(GROUPED_FRACTION)})",
    "worded": "NOT regexp_matches(@, '[0-9]')",
    "endless": r"regexp_full_match(lower(@), '\s*-?inf(inity)?\s*')",
}
# DuckDB takes a column of `Infinity`, or of `epoch`, for one of dates.
_DATED: dict[str, tuple[str, ...]] = {
    "DATE": ("filled", "worded", "endless"),
    "TIMESTAMP": ("filled", "worded", "endless"),
}
# What a column of a type is looked at for, where decimal commas may be and where they may not, and where the point is
# declared: the rest is 0.
_FORMS_OF: dict[bool | str, dict[str, tuple[str, ...]]] = {
    ".": _DATED
    | {
        "BIGINT": ("filled", "whole", "zero"),
        "DOUBLE": ("filled", "zero", "lossy"),
        "VARCHAR": ("filled", "whole", "zero", "pointed", "thousands", "thousands_pointed"),
    },
    False: _DATED | {"BIGINT": ("filled", "whole", "zero"), "DOUBLE": ("filled", "zero", "lossy")},
    True: _DATED
    | {
        "BIGINT": ("filled", "whole", "zero"),
        "DOUBLE": ("filled", "whole", "zero", "lossy", "pointed", "doubtful_point", "grouped_once"),
        "VARCHAR": ("filled", "whole", "zero", "comma", "doubtful_comma", "grouped", "grouped_once"),
    },
}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """How many of a column's values are of which form."""

    filled: int
    whole: int
    zero: int
    lossy: int
    pointed: int
    doubtful_point: int
    comma: int
    doubtful_comma: int
    grouped: int
    grouped_once: int
    thousands: int
    thousands_pointed: int
    worded: int
    endless: int

    @property
    def is_comma(self) -> bool:
        """Whether all are numbers and at least one has a decimal comma, as far as one can see."""
        return bool(self.comma) and self.comma + self.whole + self.grouped == self.filled and not self.zero

    @property
    def proves_comma(self) -> bool:
        return self.is_comma and self.comma > self.doubtful_comma


def settled(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    types: Mapping[str, str],
    said: Mapping[str, Any],
) -> tuple[list[str], dict[str, Any]]:
    """The types of the columns, by name, and the dialect with what they are read by; `said` of it was declared."""
    mark = said.get("decimal")
    commas_may_be = mark == "," or (mark is None and dialect["delim"] != ",")
    commas_for = "." if mark == "." else commas_may_be
    seen = _look(connection, text, dialect, list(types.values()), commas=commas_for)
    if seen is None:
        return list(types.values()), dialect
    proven = commas_may_be and mark is None and any(column.proves_comma for column in seen)
    found, commas = [], []
    for (name, kind), column in zip(types.items(), seen, strict=True):
        settled_kind = kind
        if kind in ("BIGINT", "DOUBLE", "VARCHAR"):
            settled_kind = _number(kind, column, mark, proven=proven)
        elif kind in _DATED and column.worded == column.filled:
            settled_kind = "DOUBLE" if column.endless == column.filled else "VARCHAR"
        if proven and settled_kind in ("BIGINT", "DOUBLE") and not column.pointed:
            commas.append(name)
        found.append(settled_kind)
    dialect = dialect | ({"commas": commas} if commas else {})
    return _dates(connection, text, dialect, found, said)


def _number(kind: str, seen: _Seen, mark: str | None, *, proven: bool) -> str:
    if not seen.filled:
        return kind
    if mark == "," or (mark == "." and kind == "VARCHAR"):
        return _with_declared_comma(kind, seen) if mark == "," else _with_thousands(seen)
    if proven and seen.is_comma:
        return "VARCHAR" if seen.lossy else "DOUBLE"
    # In a file with decimal commas, 1.234 is one or more than a thousand.
    doubtful = proven and seen.pointed and seen.pointed == seen.doubtful_point
    if kind == "VARCHAR" or seen.zero or (kind == "DOUBLE" and seen.lossy) or doubtful:
        return "VARCHAR"
    if kind == "BIGINT" and seen.whole < seen.filled:
        return "DOUBLE" if seen.whole + seen.pointed == seen.filled else "VARCHAR"
    return kind


def _with_declared_comma(kind: str, seen: _Seen) -> str:
    if seen.zero or seen.comma + seen.whole + seen.grouped_once < seen.filled:
        return kind if kind != "DOUBLE" or not seen.pointed else "VARCHAR"
    if seen.comma:
        return "DOUBLE"
    return "VARCHAR" if seen.lossy and kind == "DOUBLE" else "BIGINT"


def _with_thousands(seen: _Seen) -> str:
    fractions = seen.thousands_pointed + seen.pointed
    grouped = seen.thousands + seen.thousands_pointed
    if seen.zero or not grouped or seen.thousands + seen.whole + fractions < seen.filled:
        return "VARCHAR"
    return "DOUBLE" if fractions else "BIGINT"


def _dates(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    types: Sequence[str],
    said: Mapping[str, Any],
) -> tuple[list[str], dict[str, Any]]:
    """A date that could be read in more than one way, in all its columns, is text."""
    found = list(types)
    for kind, option in (("DATE", "dateformat"), ("TIMESTAMP", "timestampformat")):
        form = dialect.get(option)
        places = [place for place, type_ in enumerate(types) if type_ == kind]
        others = list(_other_readings(str(form))) if form else []
        if not places or not others or option in said:
            continue
        counts = ", ".join(
            f"count(*) FILTER (WHERE c{place} IS NOT NULL AND try_strptime(c{place}, {literal(other)}) IS NULL)"
            for other in others
            for place in places
        )
        rows = _asked(connection, text, dialect, len(types), f"SELECT {counts} FROM #")
        if rows is None:
            continue
        row = rows[0]
        failed = [sum(row[begin : begin + len(places)]) for begin in range(0, len(row), len(places))]
        if all(failed):
            continue
        dialect = {name: value for name, value in dialect.items() if name != option}
        for place in places:
            found[place] = "VARCHAR"
    return found, dialect


def _other_readings(form: str) -> Iterator[str]:
    """The other orders of day, month and year that people write in the same way; with dots, only one is."""
    day, _, rest = form.partition(" ")
    behind = f" {rest}" if rest else ""
    for separator in "/-":
        parts = day.split(separator)
        if len(parts) != 3 or parts[0] == "%Y":
            continue
        if parts[2] == "%Y":
            yield separator.join([parts[1], parts[0], "%Y"]) + behind
            continue
        for other in (("%d", "%m", "%y"), ("%m", "%d", "%y"), ("%y", "%m", "%d")):
            if list(other) != parts:
                yield separator.join(other) + behind


def _look(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    kinds: Sequence[str],
    *,
    commas: bool | str,
) -> list[_Seen] | None:
    seen = [_Seen(**dict.fromkeys(_COUNTS, 0)) for _ in kinds]
    wanted = {place: forms for place, kind in enumerate(kinds) if (forms := _FORMS_OF[commas].get(kind))}
    if not wanted:
        return seen
    if len(wanted) > _NARROW:
        return _look_wide(connection, text, dialect, seen, list(wanted))
    counts = ", ".join(_counted(forms, f"c{place}") for place, forms in wanted.items())
    rows = _asked(connection, text, dialect, len(kinds), f"SELECT {counts} FROM #")
    if rows is None:
        return None
    row = iter(rows[0])
    for place, forms in wanted.items():
        seen[place] = replace(seen[place], **{form: next(row) for form in forms})
    return seen


def _look_wide(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    seen: Sequence[_Seen],
    places: Sequence[int],
) -> list[_Seen] | None:
    # An expression for each column would take DuckDB the longer to plan the more there are.
    cells = ", ".join(f"c{place}" for place in places)
    asked = (
        f"SELECT place, {_counted(tuple(_COUNTS), 'v')} FROM "
        f"(SELECT unnest([{', '.join(map(str, places))}]) AS place, unnest([{cells}]) AS v FROM #) GROUP BY place"
    )
    rows = _asked(connection, text, dialect, len(seen), asked)
    if rows is None:
        return None
    found = {place: _Seen(**dict(zip(_COUNTS, counts, strict=True))) for place, *counts in rows}
    return [found.get(place, empty) for place, empty in enumerate(seen)]


def _counted(forms: Sequence[str], value: str) -> str:
    return ", ".join(f"count(*) FILTER (WHERE {_COUNTS[form].replace('@', value)})" for form in forms)


def _asked(
    connection: duckdb.DuckDBPyConnection, text: Path, dialect: dict[str, Any], width: int, sql: str
) -> list[tuple[Any, ...]] | None:
    """The answer over `#`, all lines that are records; None where they cannot be told apart, which is said later."""
    for strict in (True, False):
        connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
        try:
            return connection.execute(sql.replace("#", reading(text, dialect, width, strict=strict))).fetchall()
        except duckdb.Error as error:
            raise_machine_fault(error)
    return None
