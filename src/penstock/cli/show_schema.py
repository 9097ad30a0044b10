"""How one version of a schema differs from the next, and how that looks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from penstock.model import Column, Schema

if TYPE_CHECKING:
    from penstock.ledger.schemas import Remembered


def differences(old: Schema, new: Schema) -> list[str]:
    """What is other in `new`, in its order; what went comes last, then what changed in the dialect."""
    from penstock.formats.lattice import LONG

    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    found = []
    for name, column in after.items():
        was = before.get(name)
        if was is None:
            found.append(f"+ {name} {column.type}{_from(column)}")
            continue
        if was.type != column.type:
            found.append(f"~ {name} {was.type} → {column.type}")
        if was.original != column.original:
            found.append(f"~ {name} read from {column.original!r}, before from {was.original!r}")
    found += [f"- {name} {column.type}" for name, column in before.items() if name not in after]
    for key in sorted({*old.dialect, *new.dialect} - {LONG}):
        was_said, said = old.dialect.get(key), new.dialect.get(key)
        if was_said != said:
            found.append(f"~ dialect: {key} {said!r}, before {was_said!r}")
    for name in new.dialect.get(LONG, ()):
        if name not in old.dialect.get(LONG, ()):
            found.append(f"~ {name} never becomes DOUBLE, which would round numbers that it has")
    return found


def other_name(column: Column) -> str:
    """What the data calls a column where that is not its name in the table."""
    from penstock.formats.names import flat_name

    return "" if flat_name(column.original) == column.name else column.original


def _from(column: Column) -> str:
    return f", read from {original!r}" if (original := other_name(column)) else ""


def schema_facts(versions: Sequence[Remembered]) -> list[dict[str, Any]]:
    """Every version for a program, with what it changed; `changed` is empty for the first of a format."""
    facts = []
    for _, group in groupby(versions, key=lambda one: one.form):
        before: Schema | None = None
        for one in group:
            facts.append(
                {
                    "format": one.form,
                    "version": one.schema.version,
                    "at": one.at,
                    "cause": one.cause,
                    "changed": differences(before, one.schema) if before else [],
                    "columns": [
                        {"name": column.name, "original": column.original, "type": column.type}
                        for column in one.schema.columns
                    ],
                    "dialect": one.schema.dialect,
                }
            )
            before = one.schema
    return facts
