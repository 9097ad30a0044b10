"""What the table of a dataset holds, column by column, asked of the warehouse by its own `query`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.warehouse.base import LOADED_AT, OBJECT, REJECTED_SUFFIX, RESCUED, Warehouse

_OWN = "_penstock"
_MOST_COLUMNS = 100_000
# Of one SELECT; PostgreSQL takes 1,664 expressions, and each column needs four.
_AT_ONCE = 300
# What PostgreSQL has no order for, or none that says anything.
_NO_ORDER = {"json", "jsonb", "bytea", "xml", "ARRAY"}
_ORDERED_AS_TEXT = {"boolean", "uuid"}


@dataclass(frozen=True, kw_only=True)
class ProfiledColumn:
    """`low` and `high` as text; `distinct` None where it is not told; `empty` is a share, 0 to 1."""

    name: str
    type: str
    low: str | None
    high: str | None
    distinct: int | None
    empty: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A dataset's table. `exact` tells whether `distinct` was counted or estimated."""

    rows: int
    objects: int
    first_loaded: datetime | None
    last_loaded: datetime | None
    rescued: int
    rejected: int
    exact: bool
    columns: Sequence[ProfiledColumn]


def profile_of(warehouse: Warehouse, dataset: str, *, postgres: bool) -> Profile | None:
    """The profile; None when there is no table yet. Raises QueryTooLong as every query does."""
    from penstock.quoting import literal, quoted

    listed = warehouse.query(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = current_schema() "
        f"AND table_name = {literal(dataset)} ORDER BY ordinal_position",
        limit=_MOST_COLUMNS,
    ).rows
    if not listed:
        return None
    table = quoted(dataset)
    facts = warehouse.query(
        f"SELECT count(*), count(DISTINCT {OBJECT}), min({LOADED_AT}), max({LOADED_AT}), count({RESCUED}) FROM {table}",
        limit=1,
    ).rows[0]
    rejected = warehouse.query(f"SELECT count(*) FROM {quoted(dataset + REJECTED_SUFFIX)}", limit=1).rows[0][0]
    own = [(name, kind) for name, kind in listed if not name.startswith(_OWN)]
    columns = _counted(warehouse, table, own) if postgres else _summarised(warehouse, table)
    return Profile(
        rows=facts[0],
        objects=facts[1],
        first_loaded=facts[2],
        last_loaded=facts[3],
        rescued=facts[4],
        rejected=rejected,
        exact=postgres,
        columns=columns,
    )


def _summarised(warehouse: Warehouse, table: str) -> list[ProfiledColumn]:
    found = warehouse.query(f"SUMMARIZE {table}", limit=_MOST_COLUMNS)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return [
        ProfiledColumn(
            name=row["column_name"],
            type=row["column_type"],
            low=row["min"],
            high=row["max"],
            distinct=row["approx_unique"],
            empty=float(row["null_percentage"] or 0) / 100,
        )
        for row in rows
        if not row["column_name"].startswith(_OWN)
    ]


def _counted(warehouse: Warehouse, table: str, columns: Sequence[tuple[str, str]]) -> list[ProfiledColumn]:
    from penstock.quoting import quoted

    found = []
    for start in range(0, len(columns), _AT_ONCE):
        some = columns[start : start + _AT_ONCE]
        wanted = ", ".join(", ".join(_aggregates(quoted(name), kind)) for name, kind in some)
        total, *told = warehouse.query(f"SELECT count(*), {wanted} FROM {table}", limit=1).rows[0]
        for index, (name, kind) in enumerate(some):
            given, low, high, distinct = told[4 * index : 4 * index + 4]
            empty = (total - given) / total if total else 0.0
            found.append(ProfiledColumn(name=name, type=kind, low=low, high=high, distinct=distinct, empty=empty))
    return found


def _aggregates(name: str, kind: str) -> list[str]:
    if kind in _NO_ORDER:
        return [f"count({name})", "NULL::text", "NULL::text", "NULL::bigint"]
    ordered = f"{name}::text" if kind in _ORDERED_AS_TEXT else name
    return [f"count({name})", f"min({ordered})::text", f"max({ordered})::text", f"count(DISTINCT {name})"]


def profile_facts(profile: Profile) -> dict[str, Any]:
    """All of it for a program."""
    return {
        "rows": profile.rows,
        "objects": profile.objects,
        "first_loaded": profile.first_loaded,
        "last_loaded": profile.last_loaded,
        "rescued": profile.rescued,
        "rejected": profile.rejected,
        "distinct_is_exact": profile.exact,
        "columns": [
            {
                "name": one.name,
                "type": one.type,
                "min": one.low,
                "max": one.high,
                "distinct": one.distinct,
                "null_share": round(one.empty, 6),
            }
            for one in profile.columns
        ],
    }
