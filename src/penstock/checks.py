"""What a dataset's rows, and its objects, must fulfil: named SQL predicates, and the usual ones ready made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from penstock.errors import DeclarationError
from penstock.nearest import did_you_mean
from penstock.quoting import literal, quoted

Severity = Literal["warn", "row", "object"]
_SEVERITIES = get_args(Severity)


@dataclass(frozen=True)
class Check:
    """An SQL predicate that must be true (NULL is not true), and what becomes of what fails it.

    `over="row"`: it is asked of every row, before `select`. `over="object"`: once of an object's good rows, after
    `select`, with aggregates: `count(*) > 0`. `severity`: `warn` loads all the same and says so, `row` puts the row
    aside, `object` puts the whole object into quarantine. Unsaid, it is `row` for rows and `object` for objects.
    `column` is the one that a row which fails is said to be wrong in. `control` names a value of the object's control
    file (`Ready(beside=…)`) to which the predicate, then an expression, must be equal.
    """

    predicate: str
    severity: Severity | None = None
    over: Literal["row", "object"] = "row"
    column: str | None = None
    control: str | None = None

    def __post_init__(self) -> None:
        if self.severity is None:
            object.__setattr__(self, "severity", self.over)

    def wrong(self) -> str | None:
        """Why it cannot be asked; None when it can. The dataset says it, which knows the check's name."""
        if not isinstance(self.predicate, str) or not self.predicate.strip():
            return f"an SQL predicate such as 'quantity > 0' is wanted, not {self.predicate!r}"
        if self.over not in ("row", "object"):
            return f"over {self.over!r} must be 'row' or 'object'{did_you_mean(self.over, ('row', 'object'))}"
        if self.severity not in _SEVERITIES:
            near = did_you_mean(self.severity, _SEVERITIES)
            return f"severity {self.severity!r}: use warn, row or object{near}"
        if self.over == "object" and self.severity == "row":
            return f"{self.predicate!r} is over the object, which has no row to put aside: severity='object' or 'warn'"
        if self.control is not None and self.over != "object":
            return f"{self.predicate!r}: a control file tells of an object: over='object'"
        return None


def not_null(column: str, *, severity: Severity = "row") -> Check:
    """The column has a value in every row."""
    return Check(f"{_column(column)} IS NOT NULL", severity, column=column)


def unique(*columns: str, severity: Severity = "row") -> Check:
    """No two rows of an object have the same values in these columns; the first one of several is good.

    Across objects use `write="merge"` with a key.
    """
    if not columns:
        raise DeclarationError("unique() needs the name of a column")
    names = ", ".join(_column(column) for column in columns)
    return Check(f"row_number() OVER (PARTITION BY {names} ORDER BY _penstock_row) = 1", severity, column=columns[0])


def accepted(column: str, values: Sequence[str | int | float | bool | None], *, severity: Severity = "row") -> Check:
    """The column's value is one of `values`; None among them accepts rows without one."""
    if not isinstance(values, list | tuple) or not values:
        raise DeclarationError(f"accepted({column!r}, …) needs a list of values")
    name = _column(column)
    wanted = ", ".join(_literal(value) for value in values if value is not None)
    either = [f"{name} IN ({wanted})"] if wanted else []
    either += [f"{name} IS NULL"] if None in values else []
    return Check(" OR ".join(either), severity, column=column)


def row_count(at_least: int = 0, at_most: int | None = None, *, severity: Severity = "object") -> Check:
    """An object has so many good rows, both bounds included."""
    bounds = [bound for bound in (at_least, at_most) if bound is not None]
    if any(type(bound) is not int or bound < 0 for bound in bounds):
        raise DeclarationError(f"row_count({at_least!r}, {at_most!r}): bounds are numbers of rows, from 0 on")
    if at_most is None and not at_least:
        raise DeclarationError("row_count() is true of every object: say at_least=1, at_most=…, or both")
    if at_most is not None and at_least > at_most:
        raise DeclarationError(f"row_count: at_least={at_least} is more than at_most={at_most}, which no object has")
    most = f" AND count(*) <= {at_most}" if at_most is not None else ""
    return Check(f"count(*) >= {at_least}{most}", severity, over="object")


def matches(expression: str, control: str, *, severity: Severity = "object") -> Check:
    """An aggregate over the object's good rows equals the value `control` of its control file: `sum(amount)`."""
    return Check(expression, severity, over="object", control=control)


def _column(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise DeclarationError(f"a column is named by a text, not by {name!r}: not_null('id'), unique('id', 'day')")
    return quoted(name)


def _literal(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return literal(value) if isinstance(value, str) else repr(value)
