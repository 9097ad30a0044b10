"""JSON that is deep, doubled, out of range, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock import Dataset
from penstock.formats import infer, read, read_together
from tests.torture.trying import tried

DEEP = 10_000
# Three records as a file.
FORMS = {"json": "[{},{},{}]", "ndjson": "{}\n{}\n{}\n"}


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
        ('{"a":2.777764496449753e+16}\n{"a":1e20}\n{"a":1.5}\n', [(2.777764496449753e16,), (1e20,), (1.5,)]),
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
        "large floats",
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


@pytest.mark.parametrize("form", ["json", "ndjson"])
@pytest.mark.parametrize(
    ("record", "key"),
    [
        ('{"a":1,"b":{"c":3},"a":2}', "a"),
        ('{"a":1,"b":{"c":3},"b":{"c":4}}', "b"),
        ('{"a":1,"b":{"c":3,"c":3}}', "c"),
        ('{"a":1,"b":{"c":3},"new":{"x y":4,"z":1,"x y":5}}', "x y"),
    ],
    ids=["values", "objects", "in an object", "rescued"],
)
def test_a_record_with_equal_keys_is_put_aside(tmp_path: Path, form: str, record: str, key: str) -> None:
    """None of the two values is lost for the other; its neighbours are loaded."""
    first = tmp_path / "first"
    first.write_text('{"a":0,"b":{"c":0}}\n')
    (tmp_path / "later").write_text(FORMS[form].format('{"a":5,"b":{"c":6}}', record, '{"a":7}'))
    dataset = Dataset(name="torture")
    found = read(tmp_path / "later", f"x.{form}", dataset, infer(first, "x.ndjson", dataset))
    assert found.rows.select(["a", "b_c"]).to_pylist() == [{"a": 5, "b_c": 6}, {"a": 7, "b_c": None}]
    rejected = [(row["_penstock_row"], row["reason"], row["raw"]) for row in found.rejected.to_pylist()]
    assert rejected == [(2, f'the key "{key}" stands twice', record)]


def test_equal_keys_in_what_is_kept_whole_stay(tmp_path: Path) -> None:
    """In a JSON column nothing is lost of them."""
    found = tried(tmp_path, "x.ndjson", '{"a":{"b":1,"b":2},"c":[{"d":1,"d":2}]}\n', nested="keep")
    assert (found.rows, found.rejected) == ([('{"b":1,"b":2}', '[{"d":1,"d":2}]')], [])


def test_equal_keys_are_found_in_objects_read_together(tmp_path: Path) -> None:
    """As in each alone."""
    paths = [tmp_path / str(number) for number in range(3)]
    for path, content in zip(paths, ('{"a":1}', '{"a":2,"a":3}', '{"a":4}'), strict=True):
        path.write_text(content)
    dataset = Dataset(name="torture")
    found = read_together(paths, "json", dataset, infer(paths[0], "x.json", dataset))
    reasons = {place: [row["reason"] for row in one.rejected.to_pylist()] for place, one in found.items()}
    assert reasons == {0: [], 1: ['the key "a" stands twice'], 2: []}


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
