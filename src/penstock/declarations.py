"""What the files in `flows/` and `sensors/` export: `DATASET`, `SENSOR`. Pure data, checked when it is made.

A wrong declaration raises `DeclarationError`; `project.py` adds the file's name to it.
"""

from __future__ import annotations

import codecs
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

Format = Literal["auto", "csv", "tsv", "json", "ndjson", "parquet", "arrow", "excel", "log", "delivery"]

# Apache's documentation of mod_log_config has both; nginx calls the second one `combined`, too. A request that is none
# of HTTP's, as scanners send them, has no method, path and protocol.
_COMMON = (
    r"(?P<host>\S+) (?P<ident>\S+) (?P<user>.+?) \[(?P<time>[^\]]+)\] "
    r'"(?P<request>(?P<method>[A-Z]+) (?P<path>\S+) (?P<protocol>HTTP/[0-9.]+)|(?:[^"\\]|\\.)*)" '
    r"(?P<status>[0-9]{3}) (?P<bytes>[0-9]+|-)"
)
LOG_PATTERNS = {
    "common": _COMMON,
    "combined": rf'{_COMMON} "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<user_agent>(?:[^"\\]|\\.)*)"',
}
# What Python's expressions have and those of DuckDB have not.
_NOT_IN_RE2 = re.compile(r"\(\?(=|!|<=|<!|P=|>|\()|(?<!\\)(\\\\)*\\[1-9]")


@dataclass(frozen=True, kw_only=True)
class Csv:
    """How CSV and TSV are read, where that is not to be found by themselves: what is said holds, the rest is found.

    `delimiter` and `quote` are one character each; `quote=""` means that nothing is quoted.
    `encoding` is one of Python's names (`windows-1252`); a byte order mark overrides it.
    `decimal` is `","` where `1.234,56` is a number; unsaid, columns whose values all are such are numbers as well.
    `header` says whether the first line names the columns; a list are the names of columns that have no such line.
    `skip` is how many lines come before the header, or the first record.
    `null` are the texts that mean no value, beside the empty one.
    `date` and `timestamp` are forms of strptime (`%m/%d/%Y`), also for what could be read in more than one way.
    """

    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    header: bool | Sequence[str] | None = None
    skip: int | None = None
    null: Sequence[str] = ()
    date: str | None = None
    timestamp: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"\x1d'):
            raise DeclarationError(f"csv: delimiter {self.delimiter!r} must be one character, such as ';'")
        if self.quote and (len(self.quote) != 1 or self.quote in "\r\n\x1d" or self.quote == self.delimiter):
            raise DeclarationError(f"csv: quote {self.quote!r} must be one character that is not the delimiter, or ''")
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            raise DeclarationError(f"csv: encoding {self.encoding!r} is not known; Python's names are, 'windows-1252'")
        if self.decimal not in (None, ".", ","):
            raise DeclarationError(f"csv: decimal {self.decimal!r} must be '.' or ','")
        if self.decimal == "," and self.delimiter == ",":
            raise DeclarationError("csv: decimal and delimiter are both ','")
        if not isinstance(self.header, bool | None) and not (self.header and _are_texts(self.header)):
            raise DeclarationError(f"csv: header {self.header!r} must be True, False, or a list of names")
        if self.skip is not None and (type(self.skip) is not int or self.skip < 0):
            raise DeclarationError(f"csv: skip {self.skip!r} must be a number of lines")
        if not _are_texts(self.null):
            raise DeclarationError(f"csv: null {self.null!r} must be a list of texts, such as ['NULL', '-']")
        for what, form in (("date", self.date), ("timestamp", self.timestamp)):
            if form is not None and "%" not in form:
                raise DeclarationError(f"csv: {what} {form!r} must be a form such as '%d.%m.%Y'")


@dataclass(frozen=True, kw_only=True)
class Excel:
    """Which table of a workbook is read.

    `sheet` is the sheet's name, or its number from 1 on; it must be said where more than one has something in it.
    `header_row` is the row with the columns' names, from 1 on; None means that there is none.
    """

    sheet: str | int | None = None
    header_row: int | None = 1

    def __post_init__(self) -> None:
        number = type(self.sheet) is int and self.sheet > 0
        if self.sheet is not None and not number and not (isinstance(self.sheet, str) and self.sheet):
            raise DeclarationError(f"excel: sheet {self.sheet!r} must be a name, or a number from 1 on")
        if self.header_row is not None and (type(self.header_row) is not int or self.header_row < 1):
            raise DeclarationError(f"excel: header_row {self.header_row!r} must be a row's number from 1 on, or None")


def _wrong_pattern(pattern: str) -> str | None:
    try:
        names = re.compile(pattern).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    if not names or not all(NAME.match(name) for name in names):
        return "name each column as in (?P<status>[0-9]+), with a-z, 0-9 and _"
    if _NOT_IN_RE2.search(pattern):
        return "what looks ahead or behind, or refers to another group, is not taken"
    return None


def _are_texts(found: object) -> bool:
    return isinstance(found, list | tuple) and all(isinstance(text, str) for text in found)


def _is_text_encoding(name: str) -> bool:
    try:
        # As text.encode does, so that `base64` is none.
        return isinstance("".encode(name), bytes) and codecs.lookup(name).incrementaldecoder is not None
    except (LookupError, ValueError):
        return False


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named stream of objects under one prefix, how to read them, and the table they land in.

    `prefix` defaults to `<name>/`. `records` is a dotted path to the records of a JSON document (`features`).
    `csv` says how CSV is read where that is not found by itself, `excel` which sheet of a workbook is.
    `pattern` are the lines of a `log`: `common`, `combined`, or a regular expression whose named groups are columns.
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
    csv: Csv = field(default_factory=Csv)
    excel: Excel = field(default_factory=Excel)
    pattern: str | None = None
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
        self._check_options()
        self._check_pattern()
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

    def _check_options(self) -> None:
        for name, found, wanted in (("csv", self.csv, Csv), ("excel", self.excel, Excel)):
            if not isinstance(found, wanted):
                raise DeclarationError(f"dataset {self.name}: {name} must be {wanted.__name__}(…), not {found!r}")

    def _check_pattern(self) -> None:
        if (self.pattern is not None) != (self.format == "log"):
            raise DeclarationError(
                f"dataset {self.name}: format='log' and pattern= go together: pattern='common', 'combined', or a "
                "regular expression with named groups"
            )
        if self.pattern is None or self.pattern in LOG_PATTERNS:
            return
        wrong = _wrong_pattern(self.pattern)
        if wrong:
            raise DeclarationError(f"dataset {self.name}: pattern {self.pattern!r}: {wrong}")

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
