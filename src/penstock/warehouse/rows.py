"""The rows of a load's parts: as one table, as other types, and those of a part that are not in the warehouse yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.machine_faults import raise_machine_fault
from penstock.warehouse.base import OBJECT, ROW, LoadPart
from penstock.widening import JSON, TEXT, bound, joined, nested

Columns = Sequence[tuple[str, str]]

# Of parts smaller than this, to copy all into one costs less than to read the many.
_SMALL_PART = 10_000


def together(parts: Sequence[LoadPart], tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of the parts as one, with the name of each row's object; columns that some lack are null there."""
    filled = [(part.ref.name, rows) for part, rows in zip(parts, tables, strict=True) if rows.num_rows]
    if not filled:
        filled = [(parts[0].ref.name, tables[0])]
    places = [pa.repeat(pa.scalar(place, pa.int32()), rows.num_rows) for place, (_, rows) in enumerate(filled)]
    objects = pa.DictionaryArray.from_arrays(pa.concat_arrays(places), pa.array([name for name, _ in filled]))
    rows = pa.concat_tables([rows for _, rows in filled], promote_options="permissive")
    if rows.num_rows < _SMALL_PART * len(filled):
        rows = rows.combine_chunks()
    return rows.append_column(OBJECT, objects)


def missing(part: LoadPart, there: pa.ChunkedArray, rejected: Iterable[int]) -> LoadPart:
    """The rows of the part, good and rejected, that were `rejected` and whose numbers are not `there`."""
    kept = there.combine_chunks()
    asked = pa.array(rejected, pa.int64())

    def rest(rows: pa.Table) -> pa.Table:
        number = rows.column(ROW)
        wanted = pc.is_in(number, value_set=asked)
        return rows.filter(pc.and_(wanted, pc.invert(pc.is_in(number, value_set=kept))))

    return replace(part, rows=rest(part.rows), rejected=rest(part.rejected))


def beyond(tables: Iterable[pa.Table], name: str, within: str | None) -> bool:
    """Whether a number in the column `name` lies outside -`within` to `within`; fractions as such never do."""
    if within is None:
        return False
    most = Decimal(within)
    for rows in tables:
        if name not in rows.column_names:
            continue
        kind = rows.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            least, greatest = pc.min_max(rows.column(name)).as_py().values()
            if least is not None and (least < -most or greatest > most):
                return True
    return False


def agreed(parts: Iterable[tuple[Columns, pa.Table]]) -> dict[str, str]:
    """Of tables and their columns, the type of each column that holds all of their values."""
    parts = list(parts)
    kinds: dict[str, str] = {}
    for columns, _ in parts:
        for name, kind in columns:
            kinds[name] = joined(kinds.get(name), kind)
    for columns, rows in parts:
        for name, kind in columns:
            if beyond([rows], name, bound(kinds[name], kind)):
                kinds[name] = TEXT
    return kinds


def as_kinds(rows: pa.Table, columns: Columns, kinds: Mapping[str, str]) -> pa.Table:
    """The rows with the values of `columns` as the types that `kinds` has for them."""
    others = [(name, kind) for name, kind in columns if name in rows.column_names and kinds.get(name, kind) != kind]
    if not others or not rows.num_rows:
        return rows
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
        connection.register("part", rows.select([name for name, _ in others]))
        values = [_as_kind('"' + name.replace('"', '""') + '"', kind, kinds[name]) for name, kind in others]
        cast = connection.sql(f"SELECT {', '.join(values)} FROM part").to_arrow_table()
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise
    finally:
        connection.close()
    for place, (name, _) in enumerate(others):
        rows = rows.set_column(rows.schema.get_field_index(name), name, cast.column(place))
    return rows


def _as_kind(value: str, kind: str, wanted: str) -> str:
    return f"to_json({value})" if nested(kind) and wanted in (TEXT, JSON) else f"CAST({value} AS {wanted})"
