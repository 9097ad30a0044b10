"""What a file is that no suffix tells: by its first bytes and lines. Only to propose a declaration, never to load."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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


def sniffed(path: Path) -> tuple[Format, str | None]:
    """The format that fits, and for log lines the pattern; CSV for any other text. Raises Unreadable."""
    with plain_file(path) as plain, plain.open("rb") as file:
        head = file.read(_LOOKED_AT)
    for magic, form in _MAGIC.items():
        if head.startswith(magic):
            return form, None
    text = head.decode("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(head) == _LOOKED_AT and len(lines) > 1:
        lines.pop()  # cut off
    if pattern := _log_pattern(lines):
        return "log", pattern
    if text.lstrip()[:1] in ("{", "["):
        return ("ndjson" if len(lines) > 1 and all(map(_is_record, lines)) else "json"), None
    return "csv", None


def _log_pattern(lines: Sequence[str]) -> str | None:
    for name, pattern in LOG_PATTERNS.items():
        fits = sum(bool(re.fullmatch(pattern, line.rstrip())) for line in lines)
        if lines and fits >= _MOSTLY * len(lines):
            return name
    return None


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
