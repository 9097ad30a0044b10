"""When what the rows of a load tell of happened, and which of them came later than is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from penstock.flows.report import EventTimes, both
from penstock.formats.engine import cursor

# What Python has a datetime for in every time zone; others, and infinity, are passed over.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def event_times(
    tables: Sequence[pa.Table], column: str, *, watermark: datetime | None, lateness: timedelta
) -> EventTimes | None:
    """Of all rows that have one in `column`; those are late that are before `watermark` by more than `lateness`.

    A time without a zone is UTC.
    """
    border = _border(watermark, lateness)
    found: EventTimes | None = None
    for some in _alike(dict(enumerate(tables)), column):
        found = both(found, _of(some, border))
    return found


def late_rows(
    tables: Mapping[int, pa.Table], column: str, *, watermark: datetime | None, lateness: timedelta
) -> dict[int, int]:
    """Of each of the tables that has any, by its number, how many rows are late as in `event_times`."""
    found: dict[int, int] = {}
    for some in _alike(tables, column):
        with cursor() as connection:
            connection.register("loaded", some)
            sql = f"SELECT number, count(*) FROM {_MOMENTS} WHERE moment < $border GROUP BY number"
            for number, rows in connection.execute(sql, {"border": _border(watermark, lateness)}).fetchall():
                found[number] = found.get(number, 0) + rows
    return found


def _alike(tables: Mapping[int, pa.Table], column: str) -> list[pa.Table]:
    """The columns of one type each in a table, as `found`, with the `number` of where each value is from."""
    alike: dict[pa.DataType, list[pa.Table]] = {}
    for number, table in tables.items():
        if column in table.column_names:
            numbers = pa.repeat(pa.scalar(number, pa.int64()), table.num_rows)
            made = pa.table({"found": table.column(column), "number": numbers})
            alike.setdefault(table.schema.field(column).type, []).append(made)
    return [pa.concat_tables(some) for some in alike.values()]


def _of(rows: pa.Table, border: int | None) -> EventTimes | None:
    with cursor() as connection:
        connection.register("loaded", rows)
        row = connection.execute(
            f"SELECT min(moment), max(moment), count(*) FILTER (WHERE moment < $border) FROM {_MOMENTS}",
            {"border": border},
        ).fetchone()
    assert row is not None
    least, greatest, late = row
    if least is None:
        return None
    return EventTimes(least=_moment(least), greatest=_moment(greatest), late=late)


def _border(watermark: datetime | None, lateness: timedelta) -> int | None:
    return _microseconds(watermark) - lateness // timedelta(microseconds=1) if watermark is not None else None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


_MOMENTS = (
    "(SELECT moment, number FROM (SELECT epoch_us(found) AS moment, number FROM "
    "(SELECT TRY_CAST(found AS TIMESTAMP) AS found, number FROM loaded) WHERE isfinite(found)) "
    f"WHERE moment BETWEEN {_microseconds(_FIRST)} AND {_microseconds(_LAST)})"
)
