"""Lines of a log by a pattern."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult, infer, kept, read
from tests.examples import examples

COMMON = '127.0.0.1 - jo smith [10/Oct/2000:13:55:36 -0700] "GET /a.gif?b=c HTTP/1.0" 200 2326'


def load(folder: Path, content: str | bytes, pattern: str = "common", **declared: Any) -> ReadResult:
    path = folder / "object"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = Dataset(name="web", format="log", pattern=pattern, **declared)
    return read(path, "x.log", dataset, infer(path, "x.log", dataset))


def values(result: ReadResult) -> list[list[Any]]:
    return [list(row.values())[:-2] for row in result.rows.to_pylist()]


def test_the_common_log_format(tmp_path: Path) -> None:
    """Its fields are typed, and a dash is no value."""
    found = load(tmp_path, f'{COMMON}\n::1 - - [01/Jan/2024:00:00:00 +0000] "HEAD / HTTP/2" 304 -\n')
    assert dict(found.columns) == {
        "host": "VARCHAR",
        "ident": "VARCHAR",
        "user": "VARCHAR",
        "time": "TIMESTAMP WITH TIME ZONE",
        "request": "VARCHAR",
        "method": "VARCHAR",
        "path": "VARCHAR",
        "protocol": "VARCHAR",
        "status": "BIGINT",
        "bytes": "BIGINT",
    }
    at = datetime(2000, 10, 10, 20, 55, 36, tzinfo=UTC)
    request = "GET /a.gif?b=c HTTP/1.0"
    assert values(found) == [
        ["127.0.0.1", None, "jo smith", at, request, "GET", "/a.gif?b=c", "HTTP/1.0", 200, 2326],
        ["::1", None, None, datetime(2024, 1, 1, tzinfo=UTC), "HEAD / HTTP/2", "HEAD", "/", "HTTP/2", 304, None],
    ]


def test_the_combined_log_format(tmp_path: Path) -> None:
    """Referer and agent come too, with escaped quotes; a request that is no HTTP is kept as it is."""
    lines = [
        rf'{COMMON} "http://example.com/start" "Agent \"x\" (y; z)"',
        r'10.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "\x16\x03\x01" 400 226 "-" "-"',
        '10.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "-" 408 - "" "-"',
    ]
    found = load(tmp_path, "\r\n".join(lines), "combined")
    assert [row[-2:] for row in values(found)] == [
        ["http://example.com/start", r"Agent \"x\" (y; z)"],
        [None, None],
        [None, None],
    ]
    assert [row[4:6] for row in values(found)] == [
        ["GET /a.gif?b=c HTTP/1.0", "GET"],
        [r"\x16\x03\x01", None],
        [None] * 2,
    ]


def test_a_line_that_does_not_match_is_put_aside(tmp_path: Path) -> None:
    """With its number and text; blank lines are none."""
    found = load(tmp_path, f"{COMMON}\n\nnonsense, and more\n{COMMON} \n  \n{COMMON} more\n{COMMON[:-4]}x\n")
    assert found.rows.column("_penstock_row").to_pylist() == [1, 4]
    assert [tuple(row.values()) for row in found.rejected.to_pylist()] == [
        (3, 3, "does not match the pattern", "nonsense, and more", None, None),
        (6, 6, "does not match the pattern", f"{COMMON} more", None, None),
        (7, 7, "does not match the pattern", f"{COMMON[:-4]}x", None, None),
    ]
    assert found.total == 5


def test_a_time_that_is_none_rejects_its_row(tmp_path: Path) -> None:
    """With the column and value."""
    found = load(tmp_path, f"{COMMON}\n{COMMON.replace('10/Oct', '31/Feb')}\n")
    reason = "time: not TIMESTAMP WITH TIME ZONE: 31/Feb/2000:13:55:36 -0700"
    assert [(row["line"], row["reason"]) for row in found.rejected.to_pylist()] == [(2, reason)]


def test_a_pattern_of_ones_own(tmp_path: Path) -> None:
    """Named groups are columns, with the types that all their values have."""
    pattern = r"(?P<at>\S+) \[(?P<level>\w+)\] (?:(?P<took>[0-9.]+)ms )?(?P<code>\d+|-) (x)?(?P<text>.*)"
    lines = [
        "2024-01-02T03:04:05Z [INFO] 1.5ms 7 started",
        "2024-01-02T03:04:06+01:00 [WARN] - it's \u00fc",
        "2024-01-02T03:04:06.5Z [WARN] 2ms 8 x007",
    ]
    found = load(tmp_path, "\n".join(lines), pattern)
    assert dict(found.columns) == {
        "at": "TIMESTAMP WITH TIME ZONE",
        "level": "VARCHAR",
        "took": "DOUBLE",
        "code": "BIGINT",
        "text": "VARCHAR",
    }
    assert [row[1:] for row in values(found)] == [
        ["INFO", 1.5, 7, "started"],
        ["WARN", None, None, "it's \u00fc"],
        ["WARN", 2.0, 8, "007"],
    ]
    plain = load(tmp_path, "2024-01-02 03:04:05 01\n2024-01-03 03:04:05 02\n", r"(?P<at>\S+ \S+) (?P<n>\d+)")
    assert dict(plain.columns) == {"at": "TIMESTAMP", "n": "VARCHAR"}


def test_a_pattern_takes_time_in_proportion(tmp_path: Path) -> None:
    """One that would take Python's own expressions years is answered at once."""
    began = time.monotonic()
    found = load(tmp_path, "aaaa!\n" + "a" * 100_000 + "\n", r"(?P<all>(a+)+)!")
    assert found.rejected.column("line").to_pylist() == [2]
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"format": "log"}, "go together"),
        ({"pattern": "common"}, "go together"),
        ({"format": "log", "pattern": "(?P<a>"}, "unterminated|missing"),
        ({"format": "log", "pattern": "(a)"}, "name each column"),
        ({"format": "log", "pattern": "(?P<A>a)"}, "name each column"),
        ({"format": "log", "pattern": r"(?P<a>a)(?=b)"}, "not taken"),
        ({"format": "log", "pattern": r"(?P<a>a)(?<!b)"}, "not taken"),
        ({"format": "log", "pattern": r"(?P<a>a)\1"}, "not taken"),
        ({"format": "log", "pattern": r"(?P<a>a)(?P=a)"}, "not taken"),
    ],
    ids=str,
)
def test_a_wrong_pattern_is_an_error_of_the_declaration(declared: dict[str, Any], reason: str) -> None:
    """It says what is wrong."""
    with pytest.raises(DeclarationError, match=f"dataset web: .*({reason})"):
        Dataset(name="web", **declared)


def test_what_only_duckdb_refuses_is_one_too(tmp_path: Path) -> None:
    """A repetition that is too long, by its own words."""
    with pytest.raises(DeclarationError, match=r"dataset web: pattern: .*repetition"):
        load(tmp_path, "a\n", r"(?P<a>a{1001})")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"nothing that fits\n", "no line matches"),
        (b"\xff\xfe\xfa\n", "not UTF-8"),
        (COMMON.encode() + b"\n\0\n", "NUL"),
    ],
    ids=["other lines", "bytes", "NUL"],
)
@pytest.mark.parametrize("pattern", ["common", r"(?P<host>\S+) - .*"])
def test_what_is_no_such_log_is_refused(tmp_path: Path, content: bytes, reason: str, pattern: str) -> None:
    """As a whole, with a reason."""
    with pytest.raises(Unreadable, match=reason):
        load(tmp_path, content, pattern)


def test_no_lines(tmp_path: Path) -> None:
    """An empty log has no records."""
    assert load(tmp_path, "").total == 0
    with pytest.raises(Unreadable, match="no line matches"):
        load(tmp_path, "\n\n")


def test_a_large_log_is_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed to disk, its rows, their numbers and the rejected lines are the same."""
    text = "".join(f"{COMMON}\n" if number % 7 else f"bad {number}\n\n" for number in range(5000))
    small = load(tmp_path, text)
    monkeypatch.setattr(kept, "LARGE", 1000)
    large = load(tmp_path, text)
    assert large.rows.equals(small.rows)
    assert large.rejected.equals(small.rejected)
    assert large.rejected.column("line").to_pylist()[:2] == [1, 9]


def test_an_odd_delimiter_is_no_end_of_a_line(tmp_path: Path) -> None:
    """A control character that parts the fields elsewhere rejects its line only."""
    found = load(tmp_path, f"{COMMON}\n\n{COMMON} \x1f x\n{COMMON}\nnonsense\n")
    assert found.rows.column("_penstock_row").to_pylist() == [1, 4]
    assert found.rejected.column("_penstock_row").to_pylist() == [3, 5]
    assert found.rejected.column("line").to_pylist()[1] == 5


WORDS = st.text("abc/.\u00fc-_", min_size=1, max_size=6).filter(lambda text: text != "-")
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-7)), timezone(timedelta(hours=5, minutes=45))])
TIMES = st.builds(datetime.fromtimestamp, st.integers(0, 7_000_000_000), ZONES)


@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(WORDS, WORDS, TIMES, WORDS, st.integers(100, 599), st.integers(0, 2**40)), min_size=1))
def test_what_is_written_as_apache_does_is_read_back(tmp_path: Path, rows: list[Any]) -> None:
    """Every field comes back equal."""
    text = "".join(
        f'{host} - {user} [{at.strftime("%d/%b/%Y:%H:%M:%S %z")}] "GET {path} HTTP/1.1" {status} {size}\n'
        for host, user, at, path, status, size in rows
    )
    names = ["host", "user", "time", "path", "status", "bytes"]
    found = load(tmp_path, text).rows.select(names).to_pylist()
    assert [tuple(row.values()) for row in found] == rows
