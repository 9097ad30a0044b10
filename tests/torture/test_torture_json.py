"""JSON that is deep, doubled, out of range, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.torture.trying import tried

DEEP = 10_000


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.json", "[" * DEEP + "]" * DEEP, "not a JSON object"),
        ("x.json", '{"a":' * DEEP + "1" + "}" * DEEP, "nested deeper than 500 levels"),
        ("x.ndjson", '{"a":' + "[" * DEEP + "]" * DEEP + "}", "nested deeper than 500 levels"),
    ],
    ids=["arrays", "objects", "in a line"],
)
def test_what_is_ten_thousand_levels_deep_is_put_aside(tmp_path: Path, name: str, content: str, reason: str) -> None:
    """It ends neither process nor run."""
    found = tried(tmp_path, name, content)
    assert (found.rows, [why for _, why in found.rejected]) == ([], [reason])


def test_a_deep_line_does_not_harm_its_neighbours(tmp_path: Path) -> None:
    """They are loaded."""
    found = tried(tmp_path, "x.ndjson", '{"a":1}\n{"a":' + "[" * DEEP + "]" * DEEP + '}\n{"a":2}\n')
    assert (found.rows, found.rejected) == ([(1,), (2,)], [(2, "nested deeper than 500 levels")])


@pytest.mark.parametrize(
    "content",
    [
        "[" * DEEP,
        '[{"a":1}, {"a"',
        "null",
        "5",
        '"x"',
        '[{"a":1}] x',
        '{"a":1}\n{"a":2}',
        '[{"a":1} /* c */]',
        "{'a':1}",
    ],
    ids=["open", "cut", "null", "number", "string", "more behind", "two", "comment", "single quotes"],
)
def test_what_is_no_document_is_refused(tmp_path: Path, content: str) -> None:
    """With a reason that names JSON, and no row."""
    found = tried(tmp_path, "x.json", content)
    assert (found.state, found.rows) == ("quarantined", [])
    assert "JSON document" in found.reason


@pytest.mark.parametrize("content", ["", " \n\t ", "[]"], ids=["nothing", "white space", "no items"])
def test_a_document_without_records_is_empty(tmp_path: Path, content: str) -> None:
    """It is no fault."""
    assert tried(tmp_path, "x.json", content).state == "empty"


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"a":1,"a":2}\n{"a":3}\n', [(1,), (3,)]),
        ('{"a":NaN}\n{"a":-Infinity}\n{"a":1.5}\n', [("nan",), ("-inf",), (1.5,)]),
        ('{"a":"\\u0000x"}\n{"a":"\\ud83d\\ude00"}\n', [("\0x",), ("\U0001f600",)]),
        ('{"Id":1,"id":2}\n', [(1, 2)]),
        ('{"":1,"a.b":2,"*":3}\n', [(1, 2, 3)]),
        ('{"a":{"b":1},"a_b":2}\n', [(1, 2)]),
        ('{"a":1}\r\n{"a":2}\r\n\r\n', [(1,), (2,)]),
        ('\ufeff{"a":"x\u2028y"}\n', [("x\u2028y",)]),
        (f'{{"a":{2**63 - 1}}}\n{{"a":{-(2**63)}}}\n', [(2**63 - 1,), (-(2**63),)]),
        ('{"a":-0.0}\n', [(-0.0,)]),
    ],
    ids=[
        "equal keys: the first",
        "not finite",
        "escapes",
        "case",
        "odd keys",
        "paths that meet",
        "CRLF",
        "mark",
        "64 bits",
        "zero below zero",
    ],
)
def test_a_line_is_read_as_what_it_says(tmp_path: Path, content: str, rows: list[tuple[Any, ...]]) -> None:
    """Nothing is put aside."""
    found = tried(tmp_path, "x.ndjson", content)
    assert (str(found.rows), found.rejected) == (str(rows), [])


@pytest.mark.parametrize(
    "number", [2**63, 2**64 + 1, -(2**63) - 1, 10**400], ids=["2^63", "2^64+1", "-2^63-1", "10^400"]
)
def test_a_number_over_64_bits_loses_no_digit(tmp_path: Path, number: int) -> None:
    """It stays text, or is put aside; it is never rounded."""
    found = tried(tmp_path, "x.ndjson", f'{{"a":{number}}}\n{{"a":1}}\n')
    kept = [str(value) for value in found.column]
    assert str(number) in kept or any("not" in reason for _, reason in found.rejected)


def test_a_lone_surrogate_is_put_aside(tmp_path: Path) -> None:
    """No text can hold it."""
    found = tried(tmp_path, "x.ndjson", '{"a":"\\ud800"}\n{"a":"b"}\n')
    assert (found.rows, found.rejected) == ([("b",)], [(1, "not JSON")])


def test_too_many_different_keys_are_refused(tmp_path: Path) -> None:
    """The reason says how many there may be."""
    found = tried(tmp_path, "x.ndjson", json.dumps({f"k{n}": n for n in range(10_000)}))
    assert found.state == "quarantined"
    assert "10000 different keys, more than 1000" in found.reason


def test_hundreds_of_keys_are_read(tmp_path: Path) -> None:
    """Each is a column."""
    found = tried(tmp_path, "x.ndjson", json.dumps({f"k{n}": n for n in range(300)}))
    assert found.rows == [tuple(range(300))]


def test_what_is_no_object_is_put_aside(tmp_path: Path) -> None:
    """One by one."""
    found = tried(tmp_path, "x.json", '[{"a":1},5,null,"x",[1]]')
    assert (found.rows, [why for _, why in found.rejected]) == ([(1,)], ["not a JSON object"] * 4)
