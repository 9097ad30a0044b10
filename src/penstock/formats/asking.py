"""The part of a row's query that says whether the row is wanted, and which checks it fails.

What is wrong with a row is a text in BAD, in which marks stand around the names of columns and checks until the row is
put aside. What puts no row aside is in NOTE: PASSED_OVER, or the numbers of checks in `noting`, some REFUSED.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from penstock.checks import Check
from penstock.declarations import Dataset
from penstock.formats.result import ROW
from penstock.quoting import literal, quoted

# Names no normalised column can have.
BAD, NOTE, WANTED = "#bad", "#note", "#wanted"
_REFUSED, _WARNED = "#refused", "#warned"
PASSED_OVER = "-"
# Before the number of a check for which no object is loaded.
REFUSED = "!"

# No value that is shown has them.
_COLUMN, _CHECK, _END = "\x1c", "\x1e", "\x1f"
_MARKS = _COLUMN + _CHECK + _END

# A window or a subquery sees other rows, `unnest` makes more of them, and the rest can see the number of the row.
_MORE_THAN_A_ROW = re.compile(
    rf"\b(over|select|from|table|unnest|generate_subscripts|columns|unnamed_subquery|{ROW})\b", re.IGNORECASE
)

# A row without its key could never be merged with another.
KEY = "key"


def aside(dataset: Dataset) -> list[tuple[str, Check]]:
    """The checks that put a row aside, by name and in order, that of the key of a merge among them."""
    own = [(name, check) for name, check in dataset.row_checks.items() if check.severity == "row"]
    return own + ([(KEY, key_check(dataset))] if dataset.key and dataset.transform is None else [])


def noting(dataset: Dataset) -> list[tuple[str, Check]]:
    """The checks that put no row aside: they warn, or speak of the whole object."""
    return [(name, check) for name, check in dataset.row_checks.items() if check.severity != "row"]


def notes(dataset: Dataset) -> bool:
    """Whether the query has the column NOTE."""
    return dataset.where is not None or bool(noting(dataset))


def key_check(dataset: Dataset) -> Check:
    """Every column of the key has a value."""
    return Check(" AND ".join(f"{quoted(name)} IS NOT NULL" for name in dataset.key), column=dataset.key[0])


def stands_alone(dataset: Dataset) -> bool:
    """Whether an expression of the declaration may see more of an object than the values of one row."""
    predicates = [check.predicate for check in dataset.row_checks.values()]
    return any(map(_MORE_THAN_A_ROW.search, [*dataset.derive.values(), dataset.where or "", *predicates]))


def about_column(name: str) -> str:
    """A column's name in a reason."""
    return f"{_COLUMN}{name}{_END}"


def unmarked(expression: str) -> str:
    """SQL of a text to be shown in a reason."""
    return f"translate({expression}, {literal(_MARKS)}, '')"


def joined(texts: Sequence[str]) -> str:
    """SQL of all that is wrong with a row; an empty text when nothing is."""
    return f"concat_ws('; ', {', '.join(texts)})" if len(texts) > 1 else f"coalesce({texts[0]}, '')"


def asked(
    inner: str, dataset: Dataset, wrong: Sequence[str], *, wanted: str | None, guarded: Callable[[str], bool]
) -> str:
    """SQL of the rows of `inner` with BAD: `wrong`, and the checks that put the row aside; and NOTE, if there is one.

    `wanted` is SQL for whether a row is passed over, which is asked before any check, of rows with nothing wrong.
    `guarded` is whether a check's predicate may fail on a row, which then fails the check.
    """
    if wanted is not None:
        inner = f"SELECT * REPLACE ({joined(wrong)} AS {quoted(BAD)}), {wanted} AS {quoted(WANTED)} FROM ({inner})"
        wrong = [f"nullif({quoted(BAD)}, '')"]
    failing = [
        f"CASE WHEN {_fails(check, guarded)} THEN {literal(f'check {_CHECK}{name}{_END}')} END"
        for name, check in aside(dataset)
    ]
    bad = joined([*wrong, *failing])
    if not notes(dataset):
        return f"SELECT * REPLACE ({bad} AS {quoted(BAD)}) FROM ({inner})"
    numbered = list(enumerate(noting(dataset)))
    refused = _numbers([(f"{REFUSED}{n}", check) for n, (_, check) in numbered if check.severity == "object"], guarded)
    warned = _numbers([(f"{n}", check) for n, (_, check) in numbered if check.severity == "warn"], guarded)
    over = f"({quoted(BAD)} = '' AND NOT {quoted(WANTED)})" if wanted is not None else "false"
    if wanted is not None and any(_MORE_THAN_A_ROW.search(check.predicate) for check in dataset.row_checks.values()):
        # A window must not see the rows that are passed over.
        return (
            f"WITH every AS MATERIALIZED ({inner}) "
            f"{_noted('SELECT * FROM every WHERE NOT ' + over, bad, refused, warned)} "
            f"UNION ALL BY NAME SELECT *, {literal(PASSED_OVER)} AS {quoted(NOTE)} FROM every WHERE {over}"
        )
    if wanted is not None:
        bad = f"CASE WHEN {over} THEN '' ELSE {bad} END"
        refused = f"CASE WHEN {over} THEN {literal(PASSED_OVER)} ELSE {refused} END"
        warned = f"CASE WHEN {over} THEN '' ELSE {warned} END"
    return _noted(inner, bad, refused, warned)


def _noted(inner: str, bad: str, refused: str, warned: str) -> str:
    inner = (
        f"SELECT * REPLACE ({bad} AS {quoted(BAD)}), {refused} AS {quoted(_REFUSED)}, {warned} AS {quoted(_WARNED)} "
        f"FROM ({inner})"
    )
    # A row that is put aside is not loaded, so that nobody is warned of it.
    loaded = f"CASE WHEN {quoted(BAD)} = '' THEN nullif({quoted(_WARNED)}, '') END"
    note = f"concat_ws(' ', nullif({quoted(_REFUSED)}, ''), {loaded})"
    return f"SELECT * EXCLUDE ({quoted(_REFUSED)}, {quoted(_WARNED)}), {note} AS {quoted(NOTE)} FROM ({inner})"


def _numbers(checks: Sequence[tuple[str, Check]], guarded: Callable[[str], bool]) -> str:
    cases = [f"CASE WHEN {_fails(check, guarded)} THEN '{number}' END" for number, check in checks]
    return f"concat_ws(' ', {', '.join(cases)})" if cases else "''"


def _fails(check: Check, guarded: Callable[[str], bool]) -> str:
    predicate = f"({check.predicate}\n)"
    return f"TRY({predicate}) IS NOT TRUE" if guarded(check.predicate) else f"{predicate} IS NOT TRUE"


def told(bad: str, dataset: Dataset) -> str:
    """SQL of the columns reason, column and check of a rejected row, from its BAD."""
    column, check = (f"nullif(regexp_extract({bad}, '{mark}([^{_END}]*){_END}', 1), '')" for mark in (_COLUMN, _CHECK))
    blamed = [(name, one.column) for name, one in aside(dataset) if one.column is not None]
    if blamed:
        cases = " ".join(f"WHEN {literal(name)} THEN {literal(blame)}" for name, blame in blamed)
        column = f"coalesce({column}, CASE {check} {cases} END)"
    return f"{unmarked(bad)}, {column}, {check}"
