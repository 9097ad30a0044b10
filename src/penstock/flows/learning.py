"""What a schema that became wider means for the objects before: their numbers are not rounded, and may become text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.flows.reading import Found, Reader
from penstock.formats.engine import cursor
from penstock.formats.lattice import EXACT, LONG
from penstock.formats.names import quoted
from penstock.model import Schema
from penstock.warehouse.base import Warehouse

# A column of a large table is looked through once, when it is to become DOUBLE.
_SECONDS = 600


def read_losing_nothing(
    number: int, reader: Reader, *, table: str, warehouse: Warehouse, parts: Iterable[pa.Table]
) -> Found:
    """The object's rows by a schema under which nothing is rounded, in the warehouse or in the `parts` of this load."""
    found = reader.read(number)
    names = _to_double(found.known, found.result.schema)
    if not names or found.known is None:
        return found
    long = _long_in(names, parts) | long_there(names, table, warehouse)
    if not long:
        return found
    known = found.known.dialect.get(LONG, [])
    reader.learn(found.form, replace(found.known, dialect=found.known.dialect | {LONG: [*known, *sorted(long)]}))
    return replace(reader.read(number), known=found.known)


def as_text(rows: pa.Table, names: Iterable[str]) -> pa.Table:
    """The rows with their values in the columns `names` as texts, as the warehouse makes them."""
    for name in names:
        place = rows.schema.get_field_index(name)
        if place < 0 or pa.types.is_string(rows.schema.field(place).type):
            continue
        with cursor() as connection:
            connection.register("part", rows.select([name]))
            texts = connection.sql(f"SELECT CAST({quoted(name)} AS VARCHAR) AS v FROM part").to_arrow_table()
        rows = rows.set_column(place, name, texts.column("v").cast(pa.string()))
    return rows


def _to_double(known: Schema | None, learned: Schema) -> list[str]:
    whole = {column.name for column in known.columns if column.type == "BIGINT"} if known else set()
    return [column.name for column in learned.columns if column.name in whole and column.type == "DOUBLE"]


def _long_in(names: Sequence[str], parts: Iterable[pa.Table]) -> set[str]:
    return {
        name
        for rows in parts
        for name in names
        if name in rows.column_names and pa.types.is_int64(rows.schema.field(name).type)
        if _is_long(*pc.min_max(rows.column(name)).as_py().values())
    }


def long_there(names: Sequence[str], table: str, warehouse: Warehouse) -> set[str]:
    """Those of the columns `names` in which the warehouse's table has a number that DOUBLE may round."""
    if not warehouse.count(table):
        return set()
    there = set(warehouse.query(f"SELECT * FROM {quoted(table)} LIMIT 0", limit=1).columns)
    asked = [name for name in names if name in there]
    if not asked:
        return set()
    bounds = ", ".join(f"min({quoted(name)}), max({quoted(name)})" for name in asked)
    ((*found,),) = warehouse.query(f"SELECT {bounds} FROM {quoted(table)}", limit=1, seconds=_SECONDS).rows
    return {name for name, least, most in zip(asked, found[::2], found[1::2], strict=True) if _is_long(least, most)}


def _is_long(least: object, most: object) -> bool:
    # What is no integer there is of another type already.
    return isinstance(least, int) and isinstance(most, int) and (least < -EXACT or most > EXACT)
