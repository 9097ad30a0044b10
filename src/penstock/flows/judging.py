"""What becomes of an object that was read: loaded, empty, or in quarantine with the reason.

First what its records say, then what the dataset's own function makes of the good ones, then its checks over those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.flows.reading import Found
from penstock.flows.undecided import undecided
from penstock.formats import ReadResult
from penstock.formats.evolve import is_rescued, rescued_names, widened
from penstock.formats.noted import Failing, failing, filtered
from penstock.formats.object_checks import ControlFile, ask
from penstock.formats.reports import refuse_unreportable
from penstock.formats.result import RESCUED
from penstock.formats.transform import NO_ROWS, transformed
from penstock.model import Schema, State


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is to become of an object; `result` is what is loaded of it, if it is.

    `failing` are the checks that put no row aside and that some row fails, `object_checks` what is wrong by those over
    the object, both by name; `filtered` is how many rows were passed over.
    """

    state: State
    reason: str | None
    result: ReadResult
    filtered: int = 0
    failing: Mapping[str, Failing] = field(default_factory=dict)
    object_checks: Mapping[str, str] = field(default_factory=dict)

    def warnings(self, dataset: Dataset) -> dict[str, int]:
        """By check, how many rows are loaded that fail it; of one over the object, that it does."""
        rows = {name: found.rows for name, found in self.failing.items() if _severity(dataset, name) == "warn"}
        return rows | {name: 1 for name in self.object_checks if _severity(dataset, name) == "warn"}


def judge_all(found: Found, control: ControlFile | None = None) -> Judged:
    """What is to become of an object that was read so, by all that its dataset declares.

    Raises Unreadable, and DeclarationError for a faulty declaration, where it is sure that the object is not to blame.
    """
    dataset, result = found.dataset, found.result
    state, reason = judge(result, dataset)
    if state is State.LOADED and dataset.schema == "freeze" and (wide := widened(found.measure, result.schema)):
        state, reason = State.QUARANTINED, f"the schema is frozen, and would have to be wider: {', '.join(wide)}"
    fails = failing(result, dataset)
    over = filtered(result)
    refused = [(name, one) for name, one in fails.items() if _severity(dataset, name) == "object"]
    if refused and state is State.LOADED:
        state, reason = State.QUARANTINED, "; ".join(_refusal(name, one, dataset) for name, one in refused)
    wrong: dict[str, str] = {}
    try:
        if state is State.LOADED:
            result = transformed(result, dataset)
            _check_columns(result, dataset)
            if why := undecided(found, result):
                raise Unreadable(why)
        if state is not State.QUARANTINED:
            wrong = ask(result.rows, dataset, control)
        if dataset.transform is not None and state is State.LOADED and result.columns:
            refuse_unreportable(result.rows, dataset)
    except DeclarationError as error:
        if found.known is not None:
            raise
        raise Unreadable(f"the first object does not fit its declaration, or that is wrong: {error}") from None
    if stops := [f"check {name}: {why}" for name, why in wrong.items() if _severity(dataset, name) == "object"]:
        state, reason = State.QUARANTINED, "; ".join(stops)
    elif state is State.LOADED and not result.rows.num_rows and not result.rejected.num_rows:
        told = f"of its {result.total:,} records {over:,} were passed over"
        state, reason = State.EMPTY, told + (", and transform returned none" if over < result.total else "")
    return Judged(state=state, reason=reason, result=result, filtered=over, failing=fails, object_checks=wrong)


def judge_nothing(dataset: Dataset, reason: str, control: ControlFile | None) -> tuple[State, str]:
    """What is to become of an object without a byte. Raises Unreadable for the control file."""
    wrong = ask(NO_ROWS, dataset, control)
    stops = [f"check {name}: {why}" for name, why in wrong.items() if _severity(dataset, name) == "object"]
    return (State.QUARANTINED, f"{reason}; {'; '.join(stops)}") if stops else (State.EMPTY, reason)


def _severity(dataset: Dataset, name: str) -> str | None:
    checks = {**dataset.row_checks, **dataset.object_checks}
    return checks[name].severity


def _refusal(name: str, one: Failing, dataset: Dataset) -> str:
    predicate = " ".join(dataset.row_checks[name].predicate.split())
    rows = "1 row fails" if one.rows == 1 else f"{one.rows:,} rows fail"
    return f"check {name}: {rows} {predicate}, the first in {one.place}"


def _check_columns(result: ReadResult, dataset: Dataset) -> None:
    """Raise Unreadable for a partition's column, and DeclarationError for another, that is not there or cannot be.

    What the dataset's own function made may lack any of them for one object only: Unreadable.
    """
    if not result.columns:
        return
    types = dict(result.columns)
    refusal: type[DeclarationError | Unreadable] = DeclarationError if dataset.transform is None else Unreadable
    own = "" if dataset.transform is None else ", or it has no value in any row"
    for name in dataset.partitions:
        if name not in types:
            raise Unreadable(f"its partition {name!r} is neither in its key, as {name}=…/, nor one of its columns{own}")
    for what, wanted in (("order_by", dataset.order_by), ("event_time", dataset.event_time)):
        if wanted is not None and wanted not in types:
            raise refusal(f"dataset {dataset.name}: {what} names {wanted!r}, which no column has{own}")
    kind = types[dataset.event_time] if dataset.event_time is not None else "DATE"
    if not (kind == "DATE" or kind.startswith("TIMESTAMP")):
        raise refusal(
            f"dataset {dataset.name}: event_time {dataset.event_time!r} is {kind}, and must be TIMESTAMP, TIMESTAMP "
            f"WITH TIME ZONE or DATE: columns={{{dataset.event_time!r}: 'TIMESTAMP'}} says so, or derive= makes it"
        )


def judge(result: ReadResult, dataset: Dataset) -> tuple[State, str | None]:
    """What is to become of an object by its records alone; the reason unless it is loaded. Pure."""
    if result.rows.num_rows and _is_strange(result.rows, result.schema):
        return State.QUARANTINED, f"it has none of the columns of {dataset.name}"
    if dataset.schema == "freeze" and is_rescued(result.rows):
        return (
            State.QUARANTINED,
            f"the schema is frozen, and it has other columns: {', '.join(rescued_names(result.rows))}",
        )
    if not result.total:
        return State.EMPTY, "it has no records"
    bad = result.rejected.num_rows
    asked = result.total - filtered(result)
    if not formats.verdict(asked, bad, dataset.threshold):
        return State.QUARANTINED, (
            f"{bad} of {asked} rows are bad, and at least {dataset.threshold:.0%} must be good: "
            f"{_most_common(result.rejected)}"
        )
    return State.LOADED, None


def _is_strange(rows: pa.Table, schema: Schema) -> bool:
    """Whether no column of the schema has a value in any row, and what the rows did hold was rescued."""
    if rows.column(RESCUED).null_count:
        return False
    names = [column.name for column in schema.columns if column.name in rows.column_names]
    return bool(names) and all(rows.column(name).null_count == rows.num_rows for name in names)


def _most_common(rejected: pa.Table, most: int = 3) -> str:
    counted = Counter(rejected.column("reason").to_pylist()).most_common(most + 1)
    named = ", ".join(f"{reason} ({count})" for reason, count in counted[:most])
    return named + (", …" if len(counted) > most else "")
