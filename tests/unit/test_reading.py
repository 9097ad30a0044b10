"""Reading ahead: what is read together and again, and that each object is read by what those before it taught."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.flows import reading
from penstock.flows.reading import Reader
from penstock.model import Schema
from tests.examples import examples

SALES = Dataset(name="sales", checks={"named": "name <> 'nobody'"})


def reader_of(folder: Path, contents: Sequence[tuple[str, bytes]], dataset: Dataset = SALES, **more: Any) -> Reader:
    files = {}
    for number, (name, content) in enumerate(contents):
        path = folder / str(number)
        path.write_bytes(content)
        files[number] = (path, name)
    return Reader(files, dataset=dataset, **{"remembered": lambda form: None, "progress": lambda: None, **more})


def read_all(reader: Reader, count: int) -> list[Any]:
    """What every object gives, each one's schema learned, as a batch does."""
    found: list[Any] = []
    for number in range(count):
        try:
            result = reader.read(number)
        except Unreadable as error:
            found.append(str(error))
            continue
        if result.result.total and result.result.schema != result.known:
            reader.learn(result.form, result.result.schema)
        rows, rejected = result.result.rows, result.result.rejected
        found.append(
            (result.form, result.known, result.result.schema, rows.schema, rows.to_pylist(), rejected.to_pylist())
        )
    return found


ROWS = st.sampled_from([b"1,a,2", b"2,b,3", b"3,c,2.5", b"3.5,d,4", b"x,e,1", b"4,nobody,2"])
FILES = st.lists(
    st.tuples(
        st.sampled_from(["a.csv", "a.csv", "a.csv", "a.tsv", "a.what"]),
        st.lists(ROWS, max_size=3).map(lambda rows: b"\n".join([b"id,name,qty", *rows, b""])),
    ),
    min_size=2,
    max_size=10,
)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(contents=FILES)
def test_each_object_is_read_by_what_those_before_it_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: list[tuple[str, bytes]]
) -> None:
    """First schemas, and numbers that widen in the middle of a batch, apply to what comes after, not before."""
    together = read_all(reader_of(tmp_path, contents), len(contents))
    with monkeypatch.context() as alone:
        alone.setattr(formats, "read_together", lambda *args, **more: {})
        assert together == read_all(reader_of(tmp_path, contents), len(contents))


def test_small_objects_are_read_together_and_large_ones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once is bounded, in arrival order; the memory of schemas is asked once; each read is told."""
    monkeypatch.setattr(reading, "SMALL", 100)
    monkeypatch.setattr(reading, "TOGETHER", 250)
    asked: list[str] = []
    groups: list[list[str]] = []
    told: list[None] = []
    real = formats.read_together

    def spy(paths: Sequence[Path], *args: Any, **more: Any) -> dict[int, formats.ReadResult]:
        groups.append([path.name for path in paths])
        return real(paths, *args, **more)

    monkeypatch.setattr(formats, "read_together", spy)
    small = b"id,name,qty\n" + b"1,a,2\n" * 10
    others = [("a.csv", small * 3), ("a.json", b'[{"id": 1, "name": "x"}]')]
    contents = [("a.csv", small)] * 4 + others + [("a.csv", small)] * 3
    (tmp_path / "first").write_bytes(small)
    schema = formats.infer(tmp_path / "first", "a.csv", SALES)

    def remembered(form: str) -> Schema | None:
        asked.append(form)
        return schema if form == "csv" else None

    reader = reader_of(tmp_path, contents, remembered=remembered, progress=lambda: told.append(None))
    assert [reader.read(number).result.total for number in range(4)] == [10] * 4
    assert groups == [["0", "1", "2"], ["3", "6", "7"]]
    for number in range(4, len(contents)):
        reader.read(number)
    assert "4" not in {name for group in groups for name in group}
    assert asked == ["csv", "json"]
    assert len(told) > len(contents)


def test_faulty_sql_is_said_by_the_first_object(tmp_path: Path) -> None:
    """A declaration that cannot be evaluated stops the run, as it does when objects are read one by one."""
    good = b"id,name,qty\n1,a,2\n"
    (tmp_path / "first").write_bytes(good)
    schema = formats.infer(tmp_path / "first", "a.csv", SALES)
    faulty = Dataset(name="sales", derive={"n": "no_such_function(id)"})
    reader = reader_of(tmp_path, [("a.csv", good)] * 3, faulty, remembered=lambda form: schema)
    with pytest.raises(DeclarationError, match="no_such_function"):
        reader.read(0)


def test_small_gzips_are_read_together_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is what a gzip holds: small ones are read with others, until these are enough; the rest alone."""
    monkeypatch.setattr(reading, "SMALL", 100)
    monkeypatch.setattr(reading, "TOGETHER", 250)
    groups: list[list[str]] = []
    real = formats.read_together

    def spy(paths: Sequence[Path], *args: Any, **more: Any) -> dict[int, formats.ReadResult]:
        groups.append([path.name for path in paths])
        found = real(paths, *args, **more)
        assert len(found) == len(paths) or len(paths) == 1
        return found

    monkeypatch.setattr(formats, "read_together", spy)
    small = b"id,name,qty\n" + b"1,a,2\n" * 10
    packed = gzip.compress(small)
    odd = [gzip.compress(small * 20), packed[:-3], gzip.compress(packed)]
    (tmp_path / "first").write_bytes(small)
    schema = formats.infer(tmp_path / "first", "a.csv", SALES)
    contents = [("a.csv.gz", content) for content in [packed, packed, *odd, packed]] + [("a.csv", small)]
    reader = reader_of(tmp_path, contents, remembered=lambda form: schema)
    found = read_all(reader, len(contents))
    assert groups == [["0", "1", "5"]]
    assert "gzip" in found[3]
    assert "packed twice" in found[4]
    assert found[0] == found[1] == found[5] == found[6]
    assert len(found[2][4]) == 200


def test_the_rows_of_a_large_batch_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From so many bytes of rows on, what is read next, alone or together, is kept on disk, and is the same."""
    small = b"id,name,qty\n" + b"1,a,2\n" * 100
    (tmp_path / "first").write_bytes(small)
    schema = formats.infer(tmp_path / "first", "a.csv", SALES)
    contents = [("a.csv", small)] * 6 + [("a.csv", small * 3)] * 2
    monkeypatch.setattr(reading, "SMALL", 1000)
    monkeypatch.setattr(reading, "TOGETHER", 1300)
    expected = read_all(reader_of(tmp_path, contents, remembered=lambda form: schema), len(contents))
    asked: list[tuple[str, bool]] = []

    def spied(name: str, real: Any) -> Any:
        def spy(*args: Any, **more: Any) -> Any:
            asked.append((name, more["large"]))
            return real(*args, **more)

        return spy

    monkeypatch.setattr(formats, "read", spied("alone", formats.read))
    monkeypatch.setattr(formats, "read_together", spied("together", formats.read_together))
    monkeypatch.setattr(reading, "MOST_IN_MEMORY", 5_000)
    assert read_all(reader_of(tmp_path, contents, remembered=lambda form: schema), len(contents)) == expected
    assert asked == [("together", False), ("together", True), ("together", True), ("alone", True), ("alone", True)]
