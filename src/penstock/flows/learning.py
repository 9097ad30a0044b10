"""What a batch learns: never forgotten, when its run dies, and nothing that was never loaded.

And what a schema that became wider means for the objects before: their numbers are not rounded, and may become text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.flows.reading import Found, Reader
from penstock.formats.lattice import EXACT, LONG
from penstock.ledger import Ledger
from penstock.model import Lease, Schema
from penstock.quoting import quoted
from penstock.warehouse.base import LoadPart, Warehouse

# What flows give is remembered apart from the formats of objects, whose columns may be others.
FORM = "flow"

# A column of a large table is looked through once, when it is to become DOUBLE.
_SECONDS = 600
# One of a load's objects tells that it happened; some may be superseded by others of the same load.
_PROOF = 20


def learn_of_the_dead(ledger: Ledger, warehouse: Warehouse, lease: Lease) -> None:
    """Remember what a load taught that happened although its run did not live to say so; or forget it.

    Raises WarehouseLocked, LeaseLost.
    """
    if proof := ledger.schemas.proposed(lease.dataset):
        ledger.schemas.conclude(lease, loaded=bool(warehouse.loaded(proof)))


def propose(ledger: Ledger, lease: Lease, learned: Mapping[str, tuple[Schema, str]], parts: Sequence[LoadPart]) -> None:
    """What the load of `parts` is to teach is in the ledger before it, and counts once the load has happened.

    Told later it might be lost, and the next object be taken for the first; told for good it might be of an object that
    is never loaded. Raises LeaseLost.
    """
    if learned:
        # What was loaded before proves nothing, unless there is nothing else.
        new = [part for part in parts if not (part.again or part.only_rejected)] or parts
        ledger.schemas.propose(lease, learned, proof=[part.ref.name for part in new[:_PROOF]])


def of_every_format(ledger: Ledger, dataset: str) -> dict[str, Schema]:
    """The newest schema of each format in which objects of the dataset came."""
    return {one.form: one.schema for one in ledger.schemas.versions(dataset) if one.form != FORM}


def read_losing_nothing(
    number: int, reader: Reader, *, table: str, warehouse: Warehouse, parts: Iterable[pa.Table]
) -> Found:
    """The object's rows by a schema under which nothing is rounded, in the warehouse or in the `parts` of this load."""
    found = reader.read(number)
    names = _to_double(found.measure, found.result.schema)
    if not names:
        return found
    long = _long_in(names, parts) | long_there(names, table, warehouse)
    if not long:
        return found
    if found.known is None or found.measure is None:
        return reader.read(number, long=long)
    known = found.measure.dialect.get(LONG, [])
    reader.learn(found.form, replace(found.measure, dialect=found.measure.dialect | {LONG: [*known, *sorted(long)]}))
    return replace(reader.read(number), known=found.known)


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
