"""The checks over an object's good rows as a whole: one query asks all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from penstock.checks import Check
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.control import equal, parsed
from penstock.formats.engine import AT_WORK, cursor, in_words
from penstock.machine_faults import raise_machine_fault

_SHOWN = 60
MISSING = "is not there; put it there and replay the object"


class ControlFile:
    """An object's control file, by its name and its bytes, or with what is the matter and what to do."""

    def __init__(self, name: str, *, content: bytes | None = None, missing: str = "") -> None:
        self._name = name
        self._content = content
        self._missing = missing

    def values(self) -> dict[str, Any]:
        """What it says. Raises Unreadable, with what to do."""
        if self._content is None:
            raise Unreadable(f"its control file {self._name} {self._missing}")
        try:
            return parsed(self._content)
        except Unreadable as error:
            raise Unreadable(
                f"its control file {self._name} cannot be used: {error}; mend it and replay the object"
            ) from None

    def value(self, wanted: str) -> Any:
        """One value of it. Raises Unreadable, with what to do."""
        found = self.values()
        if wanted not in found:
            there = ", ".join(sorted(found)[:20]) or "nothing"
            raise Unreadable(
                f"its control file {self._name} has no {wanted!r}, only {there}; mend it, or the check, and replay"
            )
        return found[wanted]


def ask(rows: pa.Table, dataset: Dataset, control: ControlFile | None) -> dict[str, str]:
    """By name, what is wrong by each check that fails. Raises Unreadable for the control file.

    Raises Unreadable too where what `transform` made has not the columns, and else DeclarationError naming a faulty
    expression. Where an object has no rows, what cannot be asked for want of columns is NULL.
    """
    checks = dataset.object_checks
    if not checks:
        return {}
    control = control or ControlFile("beside it", missing=MISSING)
    said = {name: control.value(check.control) for name, check in checks.items() if check.control is not None}
    found = _values(rows, dataset, checks)
    wrong = {name: _wrong(checks[name], value, said.get(name), rows.num_rows) for name, value in found.items()}
    return {name: reason for name, reason in wrong.items() if reason}


def _wrong(check: Check, value: Any, said: Any, rows: int) -> str | None:
    predicate = " ".join(check.predicate.split())
    if check.control is None:
        return None if value is True else f"not {predicate}, of {rows:,} good rows"
    # The sum of no rows is NULL, for which senders write 0.
    if equal(value, said) or (value is None and not rows and equal(0, said)):
        return None
    return f"{predicate} is {_shown(value)}, and its control file says {check.control} {_shown(said)}"


def _shown(value: Any) -> str:
    return "NULL" if value is None else str(value)[:_SHOWN]


def _values(rows: pa.Table, dataset: Dataset, checks: Mapping[str, Check]) -> dict[str, Any]:
    with cursor() as connection:
        connection.register("good", rows)
        try:
            row = _row(connection, [check.predicate for check in checks.values()])
            return dict(zip(checks, row, strict=True))
        except duckdb.Error as error:
            raise_machine_fault(error)
        return {name: _alone(connection, name, check, dataset, rows.num_rows) for name, check in checks.items()}


def _alone(connection: duckdb.DuckDBPyConnection, name: str, check: Check, dataset: Dataset, rows: int) -> Any:
    """The check's value, when not all can be had at once."""
    try:
        return _row(connection, [check.predicate])[0]
    except AT_WORK as error:
        return f"nothing: {in_words(error)}"
    except duckdb.Error as error:
        raise_machine_fault(error)
        if not rows:
            return None
        if dataset.transform is not None and isinstance(error, duckdb.BinderException):
            raise Unreadable(f"transform: check {name} {check.predicate!r}: {in_words(error)}") from None
        raise DeclarationError(f"dataset {dataset.name}: check {name} {check.predicate!r}: {in_words(error)}") from None


def _row(connection: duckdb.DuckDBPyConnection, expressions: Sequence[str]) -> tuple[Any, ...]:
    wanted = ", ".join(f"({expression}\n)" for expression in expressions)
    row = connection.execute(f"SELECT {wanted} FROM good").fetchone()
    assert row is not None
    return tuple(row)
