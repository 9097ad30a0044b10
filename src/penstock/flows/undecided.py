"""Columns by which rows are written and of which no value has come yet, so that their type could only be guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.declarations import Dataset
from penstock.flows.reading import Found
from penstock.formats import ReadResult

# What a column without any value is taken for.
_GUESSED = ("VARCHAR", "JSON")


def undecided(found: Found, result: ReadResult) -> str | None:
    """Why the object must not say what the type of such a column is; None where it need not.

    As text '9' would be greater than '10' for ever. `result` is what would be loaded of the object. Good rows are
    looked at only: what was put aside or passed over may have had values.
    """
    known = {column.name for column in found.measure.columns} if found.measure else set()
    types = dict(result.columns)
    guessed = {
        column.name
        for column in found.result.schema.columns
        if column.name not in known
        and column.name not in found.dataset.columns
        and column.type in _GUESSED
        and _is_empty(result, column.name)
    }
    for what, name in _written_by(found.dataset):
        if types.get(name) not in _GUESSED or not _is_empty(result, name):
            continue
        for one in sorted(guessed & _made_of(name, found.dataset)):
            return (
                f"{what} goes by the column {one!r}, which has no value in any good row, and no object before told its "
                f'type: say it, as in columns={{"{one}": "BIGINT"}}, or replay this when one with values was loaded'
            )
    return None


def _written_by(dataset: Dataset) -> Iterator[tuple[str, str]]:
    yield from (("key", name) for name in dataset.key)
    yield from (("partitions", name) for name in dataset.partitions)
    for what, name in (("order_by", dataset.order_by), ("event_time", dataset.event_time)):
        if name is not None:
            yield what, name


def _is_empty(result: ReadResult, name: str) -> bool:
    """Whether no row has a value there; of a column that is not kept nothing else is known."""
    return name not in result.rows.column_names or result.rows.column(name).null_count == result.rows.num_rows


def _made_of(name: str, dataset: Dataset) -> set[str]:
    """The words that a column is made of: its name, or those of the expressions that derive it."""
    words, open_ones = {name}, [name]
    while open_ones:
        expression = dataset.derive.get(open_ones.pop())
        new = set(re.findall(r"\w+", expression.lower())) - words if expression else set()
        words |= new
        open_ones += new
    return words
