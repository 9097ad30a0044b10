"""What the files in `flows/` and `sensors/` export: `DATASET`, `SENSOR`. Pure data, checked when it is made.

A wrong declaration raises `DeclarationError`; `project.py` adds the file's name to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from penstock.checks import Check
from penstock.dialects import LOG_PATTERNS, Csv, Excel, wrong_pattern
from penstock.errors import DeclarationError
from penstock.model import RESERVED_PREFIX
from penstock.options import wrong_name, wrong_option, wrong_prefix

if TYPE_CHECKING:
    import pyarrow as pa

# Tried with others three times, in ever smaller batches, and once alone: `ledger/decide.py` says how.
LEAST_ATTEMPTS = 4

Format = Literal["auto", "csv", "tsv", "json", "ndjson", "parquet", "arrow", "excel", "log", "delivery"]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """When objects may be read, for senders that say so by another object. Exactly one of the three is said.

    `beside`: a suffix; `a.csv` waits for `a.csv.done`, which may be a control file, with what `matches()` asks for.
    `folder`: a name; the objects of a folder wait for `_SUCCESS` in it.
    `manifest`: a glob below the prefix; objects wait until such an object names them (JSON or a key in each line).
    """

    beside: str | None = None
    folder: str | None = None
    manifest: str | None = None

    def __post_init__(self) -> None:
        said = [text for text in (self.beside, self.folder, self.manifest) if text is not None]
        if len(said) != 1 or not isinstance(said[0], str) or not said[0]:
            raise DeclarationError("ready: say one of beside='.done', folder='_SUCCESS', manifest='*.manifest'")
        if "/" in (self.beside or "") + (self.folder or ""):
            raise DeclarationError(f"ready: {said[0]!r} is the end of a key, or a name in a folder, and has no '/'")


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """Old objects, which are loaded when nothing new waits.

    `before`: what the store had last seen written before this moment (with a time zone) is old, by whichever way it is
    found. `prefix`: another prefix, all of which is old. `order` is by the time of that writing. `per_minute` is how
    many old objects may be claimed in a minute; None: as many as there are.
    """

    before: datetime | None = None
    prefix: str | None = None
    order: Literal["newest", "oldest"] = "newest"
    per_minute: int | None = None

    def __post_init__(self) -> None:
        if self.before is None and self.prefix is None:
            raise DeclarationError("backfill: say what is old: before=datetime(…, tzinfo=UTC), or prefix='archive/'")
        if self.before is not None and (not isinstance(self.before, datetime) or self.before.tzinfo is None):
            raise DeclarationError(f"backfill: before {self.before!r} must be a datetime with a time zone")
        if self.order not in ("newest", "oldest"):
            raise DeclarationError(f"backfill: order {self.order!r} must be 'newest' or 'oldest'")
        if self.per_minute is not None and (type(self.per_minute) is not int or self.per_minute < 1):
            raise DeclarationError(f"backfill: per_minute {self.per_minute!r} must be a number of objects, from 1 on")
        if self.prefix is not None and (wrong := wrong_prefix(self.prefix, "archive/sales/")):
            raise DeclarationError(f"backfill: {wrong}")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named stream of objects under one prefix, how to read them, and the table they land in.

    `prefix` defaults to `<name>/`; `match` is a glob that the rest of the key must fit (`*.csv`, `**/orders-*.csv.gz`),
    so that several datasets may share a prefix. `records` is a dotted path to the records of a JSON document
    (`features`); `nested` says whether objects within a record become columns for their fields, or are kept whole.
    `csv` says how CSV is read where that is not found by itself, `excel` which sheet of a workbook is.
    `pattern` are the lines of a `log`: `common`, `combined`, or a regular expression whose named groups are columns.
    `columns` are type hints by table column name, in DuckDB's words, and override what was inferred.
    `checks` are SQL predicates over a row (a row is good when each is true; NULL is not true), or `Check`s.
    `derive` are SQL expressions over a row's columns, in order; a later one may use an earlier one.
    `where` is an SQL predicate over a row, after `derive`: rows for which it is not true are passed over.
    `transform` gets an object's good rows as an Arrow table, after `select`, and returns those that are loaded; the
    column `_penstock_row` says which record each came from, and must be kept.
    `select`, when given, are the only columns that are kept, in that order, derived ones included.
    `schema` is what becomes of columns that the first object had not: `rescue` puts their values into
    `_penstock_rescued`, `evolve` adds them to the table, `freeze` refuses the object.
    `write` is how rows come into the table: `append` them; `merge` them by `key`, so that of rows with an equal key the
    one with the greatest `order_by` stays, or the one that arrived last; `replace_partition`: an object's rows take the
    place of all rows that have the same values in `partitions`. A file that is written again replaces its own rows
    in any case (`on_overwrite`), but is merged where the dataset merges.
    `partitions` are columns; where a key has them in its path (`day=2026-03-01/`), the values are from there.
    `threshold` is the least share (0 to 1) of good rows with which an object is loaded.
    `report` are additive SQL aggregates (sum, count, histogram) over the rows of a load, for the run's report.
    `max_attempts` is how many runs may die or fail with an object before it is quarantined.
    `event_time` is the column that says when what a row tells of happened; rows are late when the greatest one before
    was later by more than `lateness`. Late rows are loaded and counted.
    `ready` is for senders that say by another object when one may be read. `backfill` says which objects are old, to be
    loaded when nothing new waits. `every` and `cron` are the schedules of the safety net beside the events.
    `retain_days` is how long a loaded object stays in the store (None: for ever); its rows stay in the table.
    """

    name: str
    prefix: str = ""
    match: str | None = None
    format: Format = "auto"
    records: str | None = None
    nested: Literal["flatten", "keep"] = "flatten"
    csv: Csv = field(default_factory=Csv)
    excel: Excel = field(default_factory=Excel)
    pattern: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, str | Check] = field(default_factory=dict)
    derive: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    select: Sequence[str] = ()
    transform: Callable[[pa.Table], pa.Table] | None = None
    write: Literal["append", "merge", "replace_partition"] = "append"
    key: Sequence[str] = ()
    order_by: str | None = None
    partitions: Sequence[str] = ()
    schema: Literal["rescue", "evolve", "freeze"] = "rescue"
    threshold: float = 0.0
    report: Mapping[str, str] = field(default_factory=dict)
    event_time: str | None = None
    lateness: timedelta = timedelta(0)
    ready: Ready | None = None
    backfill: Backfill | None = None
    every: timedelta | None = None
    cron: Sequence[str] = ()
    on_overwrite: Literal["replace", "append", "ignore"] = "replace"
    ordered: bool = True
    max_attempts: int = 5
    event_per_object: bool = False
    retain_days: float | None = None

    def __post_init__(self) -> None:
        if wrong := wrong_name("name", self.name):
            raise DeclarationError(f"dataset {wrong}")
        if self.name.endswith("__rejected"):
            raise DeclarationError(f"dataset name {self.name!r}: the ending __rejected is penstock's own")
        self._check_kinds()
        if wrong := wrong_option(vars(self)):
            raise DeclarationError(f"dataset {self.name}: {wrong}")
        if not self.prefix:
            object.__setattr__(self, "prefix", f"{self.name}/")
        if wrong := wrong_prefix(self.prefix, "folder/"):
            raise DeclarationError(f"dataset {self.name}: {wrong}")
        if self.prefix.startswith(RESERVED_PREFIX):
            raise DeclarationError(f"dataset {self.name}: the prefix {RESERVED_PREFIX!r} is penstock's own")
        self._check_schema()
        self._check_pattern()
        self._check_writing()
        self._check_control()
        if self.max_attempts < LEAST_ATTEMPTS:
            raise DeclarationError(
                f"dataset {self.name}: max_attempts must be at least {LEAST_ATTEMPTS}: a failing batch is split until "
                "the culprit is alone"
            )
        for what, names in self._names():
            for name in names:
                if wrong := wrong_name(f"{what} name", name):
                    raise DeclarationError(f"dataset {self.name}: {wrong}")

    def _names(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("columns", self.columns),
            ("derive", self.derive),
            ("report", self.report),
            ("key", self.key),
            ("partitions", self.partitions),
            ("order_by", [self.order_by] if self.order_by is not None else []),
            ("event_time", [self.event_time] if self.event_time is not None else []),
        )

    @property
    def row_checks(self) -> dict[str, Check]:
        """The checks over rows, by name."""
        own = {name: found if isinstance(found, Check) else Check(found) for name, found in self.checks.items()}
        return {name: check for name, check in own.items() if check.over == "row"}

    @property
    def object_checks(self) -> dict[str, Check]:
        """The checks over an object's rows as a whole."""
        return {
            name: check for name, check in self.checks.items() if isinstance(check, Check) and check.over == "object"
        }

    def _check_writing(self) -> None:
        if self.write == "merge" and not self.key:
            raise DeclarationError(
                f"dataset {self.name}: write='merge' and key=[…] go together: add key=[\"id\"], with the columns that "
                "say which row it is"
            )
        if self.key and self.write != "merge":
            raise DeclarationError(
                f"dataset {self.name}: write='merge' and key=[…] go together: add write=\"merge\", or leave out key"
            )
        if self.order_by is not None and self.write != "merge":
            raise DeclarationError(f"dataset {self.name}: order_by says which row of a key stays, with write='merge'")
        if self.write == "replace_partition" and not self.partitions:
            raise DeclarationError(f"dataset {self.name}: write='replace_partition' needs partitions=[…]")
        if self.write != "append" and self.on_overwrite == "append":
            raise DeclarationError(
                f"dataset {self.name}: with write={self.write!r} rows are not appended; leave on_overwrite out"
            )

    def _check_control(self) -> None:
        for name, check in self.object_checks.items():
            if check.control is not None and (self.ready is None or self.ready.beside is None):
                raise DeclarationError(
                    f"dataset {self.name}: check {name} asks for a control file: ready=Ready(beside='.ctl') says where"
                )

    def _check_kinds(self) -> None:
        ready = "Ready(beside='.done'), Ready(folder='_SUCCESS') or Ready(manifest='*.manifest')"
        old = "Backfill(prefix='archive/') or Backfill(before=datetime(…, tzinfo=UTC))"
        for what, found, kind, wanted in (
            ("csv", self.csv, Csv, "Csv(delimiter=';')"),
            ("excel", self.excel, Excel, "Excel(sheet='Orders')"),
            ("ready", self.ready, Ready | None, ready),
            ("backfill", self.backfill, Backfill | None, old),
        ):
            if not isinstance(found, kind):
                raise DeclarationError(f"dataset {self.name}: {what} must be {wanted}, not {found!r}")

    def _check_pattern(self) -> None:
        if (self.pattern is not None) != (self.format == "log"):
            raise DeclarationError(
                f"dataset {self.name}: format='log' and pattern= go together: pattern='common', 'combined', or a "
                "regular expression with named groups"
            )
        if self.pattern is None or self.pattern in LOG_PATTERNS:
            return
        wrong = wrong_pattern(self.pattern)
        if wrong:
            raise DeclarationError(f"dataset {self.name}: pattern {self.pattern!r}: {wrong}")

    def _check_schema(self) -> None:
        if self.schema == "evolve" and self.select:
            raise DeclarationError(
                f"dataset {self.name}: select keeps the columns that it names, so that none can be added; leave out "
                "one of the two"
            )


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A watched folder whose files go to the bucket under the same path below it.

    `path` is relative to the project; None means the setting `PENSTOCK_INBOX`. `after` says what becomes of a file
    once it is recorded. `polling` watches by listing instead of by inotify, for network file systems.
    `settle` is how long a file must keep size and mtime where no read lease can tell that its writer is done.
    """

    path: str | None = None
    after: Literal["keep", "archive", "delete"] = "keep"
    polling: bool = False
    settle: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A watched bucket: None means the setting `PENSTOCK_BUCKET`. `every` is the sweep's interval."""

    name: str | None = None
    every: timedelta = timedelta(seconds=30)
