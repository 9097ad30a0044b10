"""Columns that a later object brings and the remembered schema lacks. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.lattice import LONG
from penstock.formats.names import places_of
from penstock.formats.result import RESCUED
from penstock.model import Column, Schema

# As many names as a reason needs.
_NAMED = 20
_LOOKED_AT = 1000


def is_rescued(rows: pa.Table) -> bool:
    """Whether any row has values that no column took."""
    rescued = rows.column(RESCUED)
    return bool(rescued.null_count < len(rescued))


def rescued_names(rows: pa.Table) -> list[str]:
    """What the sender calls the values that no column took, by the first rows that have any; sorted."""
    rescued = rows.column(RESCUED)
    texts = rescued.filter(pc.is_valid(rescued)).slice(0, _LOOKED_AT).to_pylist()
    return sorted({name for text in texts for name in json.loads(text)})[:_NAMED]


def widened(known: Schema | None, learned: Schema) -> list[str]:
    """The columns of `known` that have another type in `learned`: `quantity BIGINT → DOUBLE`."""
    before = {column.name: column.type for column in known.columns} if known else {}
    return [
        f"{column.name} {before[column.name]} → {column.type}"
        for column in learned.columns
        if before.get(column.name, column.type) != column.type
    ]


def cause_of(known: Schema | None, learned: Schema) -> str:
    """Why `learned` is another version than `known`."""
    if known is None:
        return "first object"
    before = {column.name: column for column in known.columns}
    new = [column.name for column in learned.columns if column.name not in before]
    other = [column for column in learned.columns if column.name in before and before[column.name].type != column.type]
    text = [column.name for column in other if column.type == "VARCHAR"]
    long = set(learned.dialect.get(LONG, ())) - set(known.dialect.get(LONG, ()))
    causes = (
        ("numbers widened", len(other) > len(text)),
        (f"{', '.join(text)} became text", text),
        (f"{', '.join(sorted(long))} holds numbers that fractions would round", long),
        (f"new columns {', '.join(new)}", new),
    )
    return "; ".join(cause for cause, is_so in causes if is_so)


def evolved(known: Schema, found: Schema, *, derived: Collection[str] = ()) -> Schema:
    """`known` with the columns of `found` that it lacks behind its own, and how their values are written; types stay.

    Columns are the same when `places_of` says so. Names of `derived` columns are taken.
    """
    there = set(places_of([column.original for column in found.columns], [column.original for column in known.columns]))
    taken = {*derived, *(column.name for column in known.columns)}
    new: list[Column] = []
    commas: list[str] = [*known.dialect.get("commas", ())]
    for place, column in enumerate(found.columns):
        if place in there:
            continue
        name = _unique(column.name, taken)
        taken.add(name)
        new.append(replace(column, name=name))
        if column.name in found.dialect.get("commas", ()):
            commas.append(name)
    if not new:
        return known
    dialect = known.dialect | ({"commas": commas} if commas else {})
    for form in ("dateformat", "timestampformat"):
        if form in found.dialect and known.dialect:
            dialect.setdefault(form, found.dialect[form])
    return replace(known, columns=(*known.columns, *new), dialect=dialect)


def _unique(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
