"""How files are written, where that is not found by itself: CSV dialects, a workbook's table, the lines of a log."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.errors import DeclarationError
from penstock.model import NAME

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
    `decimal` is `","` where `1.234,56` is a number, and `"."` where `1,234.56` is one; unsaid, columns whose values all
    are like the first are numbers as well.
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
        for what in ("delimiter", "quote", "encoding", "date", "timestamp"):
            if not isinstance(found := getattr(self, what), str | None):
                raise DeclarationError(f"csv: {what} {found!r} must be a text")
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


def wrong_pattern(pattern: str) -> str | None:
    """Why no log can be read by a regular expression; None when one can."""
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
