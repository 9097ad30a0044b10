"""Columns whose values stand in the key of an object: `day=2026-03-01/part-1.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

import duckdb

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.engine import cursor
from penstock.machine_faults import first_line, raise_machine_fault
from penstock.quoting import literal

# What Hive and Spark write where there is no value.
_NULL = "__HIVE_DEFAULT_PARTITION__"


def in_path(key: str, dataset: Dataset) -> tuple[tuple[str, str | None], ...]:
    """The dataset's partition columns that the folders of `key` have values of, in the declaration's order; pure.

    What `derive` makes is not looked for there.
    """
    if not dataset.partitions:
        return ()
    said = dict(folder.split("=", 1) for folder in key.split("/")[:-1] if "=" in folder)
    values = ((name, unquote(said[name])) for name in dataset.partitions if name in said and name not in dataset.derive)
    return tuple((name, None if value == _NULL else value) for name, value in values)


def with_path(dataset: Dataset, values: tuple[tuple[str, str | None], ...]) -> Dataset:
    """The dataset for objects with these values in their keys: they are columns, over those of the same name.

    Raises Unreadable for a value that its hint does not fit, DeclarationError for a hint that is no type.
    """
    if not values:
        return dataset
    derived = {name: _expression(name, value, dataset.columns) for name, value in values}
    return replace(dataset, derive={**derived, **dataset.derive})


def _expression(name: str, value: str | None, hints: Mapping[str, str]) -> str:
    if value is not None and "\0" in value:
        raise Unreadable(f"its key has a U+0000 in {name}=…, which no table holds")
    kind = hints.get(name, "VARCHAR")
    text = literal(value) if value is not None else "NULL"
    with cursor() as connection:
        try:
            row = connection.execute(f"SELECT TRY_CAST({text} AS {kind}) IS NOT NULL").fetchone()
        except duckdb.Error as error:
            raise_machine_fault(error)
            raise DeclarationError(f"columns {name} {kind!r}: {first_line(error)}") from None
    if value is not None and row != (True,):
        raise Unreadable(f"its key says {name}={value}, which is no {kind}")
    return f"CAST({text} AS {kind})"
