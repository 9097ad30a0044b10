"""CSV of every kind that people, spreadsheets and faulty programs write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import Csv
from tests.torture.trying import tried

# RFC 4180, by the number of its rule in section 2, and what is written against it.
RULES: dict[str, tuple[bytes, list[tuple[Any, ...]]]] = {
    "1 a record is a line that ends with CRLF": (b"a,b\r\n1,x\r\n2,y\r\n", [(1, "x"), (2, "y")]),
    "2 the last line may have no end": (b"a,b\r\n1,x\r\n2,y", [(1, "x"), (2, "y")]),
    "3 there may be a header": (b"alpha,beta\r\n1,x\r\n", [(1, "x")]),
    "4 spaces are part of a field": (b"a,b\r\n1, x \r\n2,  y\r\n", [(1, " x "), (2, "  y")]),
    "4 the last field is not followed by a comma": (b"a,b,\r\n1,x,\r\n2,y,\r\n", [(1, "x", None), (2, "y", None)]),
    "5 a field may be quoted": (b'"a","b"\r\n"1","x"\r\n', [(1, "x")]),
    "5 a quote inside a bare field is text": (b'a,b\r\n1,x"y\r\n2,z\r\n3,w\r\n', [(1, 'x"y'), (2, "z"), (3, "w")]),
    "6 a quoted field may hold the delimiter": (b'a,b\r\n1,"x,y"\r\n2,"z"\r\n', [(1, "x,y"), (2, "z")]),
    "6 a quoted field may hold CRLF": (b'a,b\r\n1,"x\r\ny"\r\n2,"z"\r\n', [(1, "x\r\ny"), (2, "z")]),
    "6 a quoted field may hold LF": (b'a,b\n1,"x\n\ny"\n2,"z"\n', [(1, "x\n\ny"), (2, "z")]),
    "6 a quoted name may hold a line end": (b'"a\nb",c\n1,x\n2,y\n', [(1, "x"), (2, "y")]),
    "7 a quote is doubled": (b'a,b\r\n1,"say ""hi"""\r\n2,""""\r\n', [(1, 'say "hi"'), (2, '"')]),
    "an empty quoted field is no value": (b'a,b\n1,""\n2,\n3,x\n', [(1, None), (2, None), (3, "x")]),
    "LF": (b"a,b\n1,x\n2,y\n", [(1, "x"), (2, "y")]),
    "CR": (b"a,b\r1,x\r2,y\r", [(1, "x"), (2, "y")]),
    "LF and CRLF": (b"a,b\r\n1,x\n2,y\r\n3,z\n", [(1, "x"), (2, "y"), (3, "z")]),
    "LF, CRLF and CR": (b"a,b\r\n1,x\r2,y\n3,z\r\n", [(1, "x"), (2, "y"), (3, "z")]),
    "blank lines": (b"a,b\n\n1,x\n\n\n2,y\n", [(1, "x"), (2, "y")]),
    "one column": (b"a\nx\n\ny\n", [("x",), (None,), ("y",)]),
    "a quote that is escaped": (b'a,b\n1,"x\\"y"\n2,"z"\n', [(1, 'x"y'), (2, "z")]),
    "control characters": (b"a,b\n1,x\x01\x02\x7f\n", [(1, "x\x01\x02\x7f")]),
    "Unicode's own line ends are text": ("a,b\n1,x\u2028y\x85z\n".encode(), [(1, "x\u2028y\x85z")]),
    "beyond 16 bits": ("a,b\n1,\U0001f600\u0301\n".encode(), [(1, "\U0001f600\u0301")]),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_rfc_4180(tmp_path: Path, rule: str) -> None:
    """What keeps it is read as it says, and so is what is often written instead."""
    content, rows = RULES[rule]
    found = tried(tmp_path, "x.csv", content)
    assert (found.state, found.rows, found.rejected) == ("loaded", rows, [])


@pytest.mark.parametrize(
    ("content", "rows", "rejected"),
    [
        (b'a,b\n1,"x"y\n2,z\n3,w\n', [(2, "z"), (3, "w")], [(2, "bad quoting")]),
        (b'a,b\n1,"x\n2,y\n3,z\n', [(2, "y"), (3, "z")], [(2, "bad quoting")]),
        (b"a,b\n1,2\n3\n4,5,6\n7,8\n", [(1, 2), (7, 8)], [(3, "too few fields"), (4, "too many fields")]),
    ],
    ids=["text behind a quote", "an open quote", "uneven lines"],
)
def test_a_broken_line_costs_only_itself(
    tmp_path: Path, content: bytes, rows: list[tuple[Any, ...]], rejected: list[tuple[int, str]]
) -> None:
    """The lines around it are loaded, and it is put aside with its number."""
    found = tried(tmp_path, "x.csv", content)
    assert (found.rows, found.rejected) == (rows, rejected)


TEXT = "id,name\r\n1,\u00e4\u20ac\r\n2,b\r\n"
ROWS = [(1, "\u00e4\u20ac"), (2, "b")]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode("utf-8"),
        TEXT.encode("utf-8-sig"),
        b"\xef\xbb\xbf" + TEXT.encode("utf-8-sig"),
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        b"\xff\xfe\0\0" + TEXT.encode("utf-32-le"),
        b"\0\0\xfe\xff" + TEXT.encode("utf-32-be"),
    ],
    ids=["none", "UTF-8", "two of UTF-8", "UTF-16 LE", "UTF-16 BE", "UTF-32 LE", "UTF-32 BE"],
)
def test_byte_order_marks_tell_the_encoding(tmp_path: Path, content: bytes) -> None:
    """Or there is none, and it is UTF-8: the text is as it was."""
    found = tried(tmp_path, "x.csv", content)
    assert (found.types, found.rows) == ({"id": "BIGINT", "name": "VARCHAR"}, ROWS)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_asked_for(tmp_path: Path, encoding: str) -> None:
    """The reason says how to declare it, and declared so it is read."""
    asked = tried(tmp_path, "x.csv", TEXT.encode(encoding))
    assert asked.state == "quarantined"
    assert f"csv=Csv(encoding={encoding!r})" in asked.reason
    assert tried(tmp_path, "x.csv", TEXT.encode(encoding), csv=Csv(encoding=encoding)).rows == ROWS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,name\n1,\x00\n", "NUL byte at byte 11"),
        (b"id,name\n1,a\n" * 500_000 + b"2,\x00\n", "NUL byte at byte 6000003"),
        ("id,name\n1,b\n".encode("cp037"), "say what it is: csv=Csv(encoding="),
        (b"PK\x03\x04" + bytes(30), "a zip; unpack it"),
        (b"\xfd7zXZ\0" + bytes(30), "an xz; unpack it"),
        (bytes(range(256)) * 40, "NUL byte at byte 1"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "NUL byte"),
    ],
    ids=["NUL", "NUL far behind", "EBCDIC", "zip", "xz", "all bytes", "a picture"],
)
def test_what_is_no_text_is_refused_by_its_name(tmp_path: Path, content: bytes, reason: str) -> None:
    """No row of it is loaded."""
    found = tried(tmp_path, "x.csv", content)
    assert (found.state, found.rows) == ("quarantined", [])
    assert reason in found.reason


@pytest.mark.parametrize(
    "name_and_content",
    [
        (f"x.{form}", content)
        for form in ("csv", "tsv")
        for content in (b"", b"a\tb,c\n", b"a\tb,c", b"\n\n", b"\xef\xbb\xbf")
    ],
    ids=str,
)
def test_what_has_no_rows_ends_as_empty(tmp_path: Path, name_and_content: tuple[str, bytes]) -> None:
    """Nothing at all, or a header alone."""
    assert tried(tmp_path, *name_and_content).state == "empty"


# The values of a column, its type, and what they are read as where that is not the very text.
CELLS: dict[str, tuple[list[str], str, list[Any] | None]] = {
    "ISO dates": (["2024-02-13", "2024-12-01"], "DATE", ["2024-02-13", "2024-12-01"]),
    "dates with slashes": (["2024/02/13"], "DATE", ["2024-02-13"]),
    "German dates": (["13.02.2024", "01.12.2024"], "DATE", ["2024-02-13", "2024-12-01"]),
    "American dates": (["02/13/2024", "12/01/2024"], "DATE", ["2024-02-13", "2024-12-01"]),
    "British dates": (["13/02/2024", "01/12/2024"], "DATE", ["2024-02-13", "2024-12-01"]),
    "dates in doubt": (["01/02/2024", "03/04/2024"], "VARCHAR", None),
    "a day that is none": (["2024-02-30"], "VARCHAR", None),
    "week dates": (["2024-W07-2"], "VARCHAR", None),
    "names of months": (["13-Feb-2024"], "VARCHAR", None),
    "the first and the last day": (["0001-01-01", "9999-12-31"], "DATE", ["0001-01-01", "9999-12-31"]),
    "PostgreSQL's infinity": (["2024-02-13", "infinity"], "DATE", ["2024-02-13", "infinity"]),
    "times with zones": (
        ["2024-02-13T01:02:03+02:00", "2024-02-13T01:02:03-05:30"],
        "TIMESTAMP WITH TIME ZONE",
        ["2024-02-12 23:02:03+00", "2024-02-13 06:32:03+00"],
    ),
    "microseconds": (["2024-02-13 01:02:03.000001"], "TIMESTAMP", ["2024-02-13 01:02:03.000001"]),
    "times of day": (["12:30", "23:59:59.5"], "TIME", ["12:30:00", "23:59:59.5"]),
    "the ends of 64 bits": ([str(2**63 - 1), str(-(2**63))], "BIGINT", [2**63 - 1, -(2**63)]),
    "one more than 64 bits": ([str(2**63), "1"], "VARCHAR", None),
    "128 bits": ([str(2**127 - 1)], "VARCHAR", None),
    "thirty digits": (["123456789012345678901234567890"], "VARCHAR", None),
    "more than a DOUBLE": (["1e400", "1"], "VARCHAR", None),
    "the ends of a DOUBLE": (["1e308", "-1e-320"], "DOUBLE", [1e308, -1e-320]),
    "NaN": (["NaN", "1.5", "nan"], "DOUBLE", ["nan", 1.5, "nan"]),
    "infinities beside NaN": (["nan", "inf", "-inf"], "DOUBLE", ["nan", "inf", "-inf"]),
    "infinities beside numbers": (["inf", "-inf", "1.5"], "VARCHAR", None),
    "nothing but infinities": (["Infinity", "-Infinity"], "DOUBLE", ["inf", "-inf"]),
    "a zero below zero": (["-0.0", "0.1"], "DOUBLE", [-0.0, 0.1]),
    "zeros in front": (["007", "008"], "VARCHAR", None),
    "digits of other scripts": (["\u0661\u0662"], "VARCHAR", None),
    "money": (["$5", "(5)"], "VARCHAR", None),
    "per cent": (["5%"], "VARCHAR", None),
    "hexadecimal": (["0x1F"], "VARCHAR", None),
    "underscores": (["1_000"], "VARCHAR", None),
    "truth": (["true", "FALSE"], "BOOLEAN", [True, False]),
    "a formula": (['=1+1"', "@x"], "VARCHAR", ['=1+1"', "@x"]),
}


@pytest.mark.parametrize("case", CELLS)
def test_a_value_is_read_as_what_it_says(tmp_path: Path, case: str) -> None:
    """It gets a type that holds all of it, or stays the text it was."""
    cells, kind, read = CELLS[case]
    found = tried(tmp_path, "x.csv", "id,d\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
    assert found.types["d"] == kind
    assert str(found.column) == str(read or cells)
    assert found.rejected == []
