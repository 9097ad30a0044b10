"""When what the rows of a load tell of happened, and which of them came later than is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from penstock.flows.report import EventTimes, both
from penstock.formats.engine import cursor
from penstock.formats.names import quoted

# What Python has a datetime for in every time zone; others, and infinity, are passed over.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def event_times(
    tables: Sequence[pa.Table], column: str, *, watermark: datetime | None, lateness: timedelta
) -> EventTimes | None:
    """Of all rows that have one in `column`; those are late that are before `watermark` by more than `lateness`.

    A time without a zone is UTC.
    """
    border = _microseconds(watermark) - lateness // timedelta(microseconds=1) if watermark is not None else None
    found: EventTimes | None = None
    alike: dict[pa.DataType, list[pa.Table]] = {}
    for table in tables:
        if column in table.column_names:
            alike.setdefault(table.schema.field(column).type, []).append(table.select([column]))
    for some in alike.values():
        found = both(found, _of(pa.concat_tables(some), column, border))
    return found


def _of(rows: pa.Table, column: str, border: int | None) -> EventTimes | None:
    name = quoted(column)
    with cursor() as connection:
        connection.register("loaded", rows)
        row = connection.execute(
            "SELECT min(moment), max(moment), count(*) FILTER (WHERE moment < $border) FROM (SELECT epoch_us(found) AS "
            f"moment FROM (SELECT TRY_CAST({name} AS TIMESTAMP) AS found FROM loaded) WHERE isfinite(found)) "
            f"WHERE moment BETWEEN {_microseconds(_FIRST)} AND {_microseconds(_LAST)}",
            {"border": border},
        ).fetchone()
    assert row is not None
    least, greatest, late = row
    if least is None:
        return None
    return EventTimes(least=_moment(least), greatest=_moment(greatest), late=late)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
