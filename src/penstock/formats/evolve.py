"""Columns that a later object brings and the remembered schema lacks. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.names import flat_name
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


def evolved(known: Schema, found: Schema, *, derived: Collection[str] = ()) -> Schema:
    """`known` with the columns of `found` that it lacks behind its own, and how their values are written; types stay.

    Columns are the same when they are called the same in the data; the second of a name is the second.
    Names of `derived` columns are taken.
    """
    left = Counter(column.original for column in known.columns)
    left.update(flat_name(column.original) for column in known.columns if flat_name(column.original) not in left)
    taken = {*derived, *(column.name for column in known.columns)}
    new: list[Column] = []
    commas: list[str] = [*known.dialect.get("commas", ())]
    for column in found.columns:
        if left[column.original] > 0:
            left[column.original] -= 1
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
