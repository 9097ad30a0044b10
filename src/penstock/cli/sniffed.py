"""What a file is that no suffix tells: by its first bytes and lines. Only to propose a declaration, never to load."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock.declarations import Format
from penstock.dialects import LOG_PATTERNS
from penstock.formats.plain import plain_file

_LOOKED_AT = 64 * 1024
_MAGIC: dict[bytes, Format] = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"PK\x03\x04": "excel",
    b"\xd0\xcf\x11\xe0": "excel",
}
# Some lines of a log are rubbish that was sent to the server.
_MOSTLY = 0.8


# Offered for a log of another form: the first one that fits its lines.
_OFFERED = (
    r"(?P<time>\d{4}-\d\d-\d\d[T ]\S+) +\[?(?P<level>[A-Za-z]+)\]?:? +(?P<text>.*)",
    r"(?P<time>[A-Z][a-z]{2} +\d+ [0-9:]+) (?P<host>\S+) (?P<program>[^:]+): (?P<text>.*)",
    r"\[?(?P<level>[A-Z]+)\]?:? +(?P<text>.*)",
    r"(?P<first>\S+) (?P<text>.*)",
)


def sniffed(path: Path, *, is_log: bool = False) -> tuple[Format | None, str | None]:
    """The format that fits, and for log lines the pattern. Raises Unreadable.

    None is the format of lines that are no table and no log that is known; the pattern is then one to offer. With
    `is_log` no text is taken for a table, since many logs have a comma in each line.
    """
    with plain_file(path) as plain, plain.open("rb") as file:
        head = file.read(_LOOKED_AT)
    for magic, form in _MAGIC.items():
        if head.startswith(magic):
            return form, None
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(head) == _LOOKED_AT and len(lines) > 1:
        lines.pop()  # cut off
    if pattern := _fitting(LOG_PATTERNS.values(), lines):
        return "log", next(name for name, known in LOG_PATTERNS.items() if known == pattern)
    if text.lstrip()[:1] in ("{", "["):
        if len(lines) > 1 and all(map(_is_record, lines)):
            return "ndjson", None
        if text.lstrip()[0] == "{" or not is_log:
            return "json", None
    # What has NUL is no text, which is said of it where it is read.
    if "\0" in text or not lines or (not is_log and any(_parts(lines, delimiter) for delimiter in ",;\t|")):
        return "csv", None
    return None, _fitting(_OFFERED, lines) or _OFFERED[0]


def _parts(lines: Sequence[str], delimiter: str) -> bool:
    """Whether each line has at least two columns."""
    try:
        return all(len(record) > 1 for record in csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return False


def _fitting(patterns: Iterable[str], lines: Sequence[str]) -> str | None:
    for pattern in patterns:
        fits = sum(bool(re.fullmatch(pattern, line.rstrip())) for line in lines)
        if lines and fits >= _MOSTLY * len(lines):
            return pattern
    return None


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
