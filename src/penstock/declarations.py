"""What the files in `flows/` and `sensors/` export: `DATASET`, `SENSOR`. Pure data, checked when it is made.

A wrong declaration raises `DeclarationError`; `project.py` adds the file's name to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from penstock.errors import DeclarationError
from penstock.model import RESERVED_PREFIX

NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}\Z")

# Tried with others three times, in ever smaller batches, and once alone: `ledger/decide.py` says how.
LEAST_ATTEMPTS = 4

Format = Literal["auto", "csv", "tsv", "json", "ndjson", "parquet", "delivery"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named stream of objects under one prefix, how to read them, and the table they land in.

    `prefix` defaults to `<name>/`. `records` is a dotted path to the records of a JSON document (`features`).
    `columns` are type hints by table column name, in DuckDB's words, and override what was inferred.
    `checks` are SQL predicates over a row: a row is good when each is true (NULL is not true).
    `derive` are SQL expressions over a row's columns, in order; a later one may use an earlier one.
    `select`, when given, are the only columns that are kept, in that order, derived ones included.
    `schema` is what becomes of columns that the first object had not: `rescue` puts their values into
    `_penstock_rescued`, `evolve` adds them to the table, `freeze` refuses the object.
    `threshold` is the least share (0 to 1) of good rows with which an object is loaded.
    `report` are additive SQL aggregates (sum, count, histogram) over the rows of a load, for the run's report.
    `max_attempts` is how many runs may die or fail with an object before it is quarantined.
    `every` and `cron` are the schedules of the safety net beside the events.
    `retain_days` is how long a loaded object stays in the store (None: for ever); its rows stay in the table.
    """

    name: str
    prefix: str = ""
    format: Format = "auto"
    records: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    derive: Mapping[str, str] = field(default_factory=dict)
    select: Sequence[str] = ()
    schema: Literal["rescue", "evolve", "freeze"] = "rescue"
    threshold: float = 0.0
    report: Mapping[str, str] = field(default_factory=dict)
    every: timedelta | None = None
    cron: Sequence[str] = ()
    on_overwrite: Literal["replace", "append", "ignore"] = "replace"
    ordered: bool = True
    max_attempts: int = 5
    event_per_object: bool = False
    retain_days: float | None = None

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise DeclarationError(f"dataset name {self.name!r}: use a-z, 0-9 and _, beginning with a letter")
        if self.name.endswith("__rejected"):
            raise DeclarationError(f"dataset name {self.name!r}: the ending __rejected is penstock's own")
        if not self.prefix:
            object.__setattr__(self, "prefix", f"{self.name}/")
        if not self.prefix.endswith("/") or self.prefix.startswith("/") or ".." in self.prefix.split("/"):
            raise DeclarationError(f"dataset {self.name}: prefix {self.prefix!r} must look like 'folder/'")
        if self.prefix.startswith(RESERVED_PREFIX):
            raise DeclarationError(f"dataset {self.name}: the prefix {RESERVED_PREFIX!r} is penstock's own")
        self._check_schema()
        if not 0 <= self.threshold <= 1:
            raise DeclarationError(f"dataset {self.name}: threshold {self.threshold} is a share, from 0 to 1")
        if self.retain_days is not None and self.retain_days <= 0:
            raise DeclarationError(f"dataset {self.name}: retain_days must be more than 0, or None to keep for ever")
        if self.max_attempts < LEAST_ATTEMPTS:
            raise DeclarationError(
                f"dataset {self.name}: max_attempts must be at least {LEAST_ATTEMPTS}: a failing batch is split until "
                "the culprit is alone"
            )
        for what, names in (("columns", self.columns), ("derive", self.derive), ("report", self.report)):
            for name in names:
                if not NAME.match(name):
                    raise DeclarationError(f"dataset {self.name}: {what} name {name!r}: use a-z, 0-9 and _")

    def _check_schema(self) -> None:
        if self.schema not in ("rescue", "evolve", "freeze"):
            raise DeclarationError(f"dataset {self.name}: schema {self.schema!r}: use rescue, evolve or freeze")
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
