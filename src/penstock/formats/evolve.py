"""Columns that a later object brings and the remembered schema lacks. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.lattice import LONG
from penstock.formats.names import places_of
from penstock.formats.result import RESCUED
from penstock.model import Column, Schema
from penstock.widening import joined

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


def as_said(known: Schema, hints: Mapping[str, str]) -> Schema:
    """`known` with the types that are said in `hints`, whatever was found or said before."""
    said = {name: kind for name, kind in hints.items() if isinstance(kind, str)}
    return replace(
        known,
        columns=tuple(
            replace(column, type=said[column.name])
            if said.get(column.name, column.type).upper() != column.type.upper()
            else column
            for column in known.columns
        ),
    )


def cause_of(known: Schema | None, learned: Schema, *, hints: Collection[str] = ()) -> str:
    """Why `learned` is another version than `known`; what has another type and is in `hints` was declared so."""
    if known is None:
        return "first object"
    before = {column.name: column for column in known.columns}
    new = [column.name for column in learned.columns if column.name not in before]
    changed = [column for column in learned.columns if column.name in before]
    changed = [column for column in changed if before[column.name].type != column.type]
    other = [column for column in changed if column.name not in hints]
    said = [f"{column.name} {before[column.name].type} → {column.type}" for column in changed if column.name in hints]
    text = [column.name for column in other if column.type == "VARCHAR"]
    long = set(learned.dialect.get(LONG, ())) - set(known.dialect.get(LONG, ()))
    causes = (
        (f"declared: {', '.join(said)}", said),
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


def known_in(schemas: Iterable[Schema]) -> Schema:
    """What the table has by the schemas of several formats: their columns by name, each of the type that holds all."""
    columns: dict[str, Column] = {}
    long: set[str] = set()
    for schema in schemas:
        long |= set(schema.dialect.get(LONG, ()))
        for column in schema.columns:
            there = columns.get(column.name)
            kind = joined(there.type, column.type) if there else column.type
            columns[column.name] = replace(there or column, type=kind)
    return Schema(version=1, columns=tuple(columns.values()), dialect={LONG: sorted(long)} if long else {})


def fitted(found: Schema, known: Schema, *, hints: Collection[str], grows: bool) -> Schema:
    """The first schema `found` of a format, by the columns that the dataset is `known` to have by its other formats.

    What is known keeps its type unless one is said in `hints`. Unless it `grows`, all that is known is in it and
    nothing else: what is new is rescued.
    """
    own = {column.name: column for column in found.columns}
    kept = {
        column.name: column if column.name in hints else replace(column, type=there.type)
        for there in known.columns
        for column in [own.get(there.name, there)]
    }
    columns = [kept.get(column.name, column) for column in found.columns] if grows else kept.values()
    long = {LONG: known.dialect[LONG]} if LONG in known.dialect else {}
    return replace(found, columns=tuple(columns), dialect=found.dialect | long)


def _unique(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
