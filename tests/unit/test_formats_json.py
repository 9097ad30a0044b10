"""Reading JSON documents, NDJSON, Parquet and deliveries; detection, verdict and reports."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import envelope
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult, detect, infer, merge_reports, read, report, verdict
from penstock.model import Delivery, Schema

QUAKES = {"features": [{"id": "a", "p": {"mag": 1, "at": {"x": -3}}, "c": [1, 2]}, {"id": "b", "p": {"mag": 2.5}}]}


class _Files:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "object"

    def write(self, content: Any) -> Path:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.path

    def read(self, content: Any, key: str, schema: Schema | None = None, **declared: Any) -> ReadResult:
        dataset, path = Dataset(name="d", **declared), self.write(content)
        return read(path, key, dataset, schema or infer(path, key, dataset))

    def infer(self, content: Any, key: str, **declared: Any) -> Schema:
        return infer(self.write(content), key, Dataset(name="d", **declared))


@pytest.fixture
def files(tmp_path: Path) -> _Files:
    return _Files(tmp_path)


def kinds(schema: Schema) -> dict[str, str]:
    return {column.name: column.type for column in schema.columns}


def test_document_with_a_path_to_its_records(files: _Files) -> None:
    """Objects are flattened, arrays stay JSON, and each column keeps its path."""
    schema = files.infer(QUAKES, "x.geojson", records="features")
    assert kinds(schema) == {"id": "VARCHAR", "p_mag": "DOUBLE", "p_at_x": "BIGINT", "c": "JSON"}
    assert [column.original for column in schema.columns][1] == '$."p"."mag"'
    found = files.read(QUAKES, "x.geojson", records="features")
    assert found.rows.drop_columns(["_penstock_rescued"]).to_pylist() == [
        {"id": "a", "p_mag": 1.0, "p_at_x": -3, "c": "[1,2]", "_penstock_row": 1},
        {"id": "b", "p_mag": 2.5, "p_at_x": None, "c": None, "_penstock_row": 2},
    ]
    assert dict(found.columns)["c"] == "JSON"


def test_any_key_is_addressed(files: _Files) -> None:
    """Keys with quotes, dots, slashes, stars and nothing at all are columns like others."""
    record = {'a"b': 1, "c.d": 2, "*": 3, "": 4, "e/f": 5, "g~h": 6, "i\\j": 7, "it's": 8}
    row = files.read([record], "x.json").rows.to_pylist()[0]
    assert list(row.values())[:8] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_heterogeneous_values_are_json(files: _Files) -> None:
    """A value that is now text, now object stays JSON; null is NULL everywhere."""
    found = files.read([{"v": "s", "n": None}, {"v": {"x": 1}}, {"v": None}], "x.json")
    assert kinds(found.schema) == {"v": "JSON", "n": "VARCHAR"}
    assert found.rows.column("v").to_pylist() == ['"s"', '{"x":1}', None]


@pytest.mark.parametrize(("content", "total"), [({"a": 1}, 1), ([{"a": 1}, {"a": 2}], 2), ([], 0), ("", 0)])
def test_documents_of_other_shapes(files: _Files, content: Any, total: int) -> None:
    """A single object is one record; an empty array or file is none."""
    assert files.read(content, "x.json").total == total


def test_ndjson_lines(files: _Files) -> None:
    """Bad lines are rejected with their number and text; blank lines are no records."""
    text = '{"a":1}\n\nnot json\n[1]\n{"a":"x"}\r\n{"a":5}'
    found = files.read(text, "x.ndjson", schema=files.infer('{"a":1}', "x.ndjson"))
    assert found.rows.column("a").to_pylist() == [1, 5]
    assert found.rows.column("_penstock_row").to_pylist() == [1, 5]
    assert [tuple(row.values()) for row in found.rejected.to_pylist()] == [
        (2, 3, "not JSON", "not json", None, None),
        (3, 4, "not a JSON object", "[1]", None, None),
        (4, 5, "a: not BIGINT: x", '{"a":"x"}', "a", None),
    ]


def test_new_keys_are_rescued(files: _Files) -> None:
    """What no column takes is kept as JSON by its path; missing keys are NULL."""
    schema = files.infer([{"a": 1, "b": {"c": 2}}], "x.json")
    first, second = files.read([{"b": {"d": [3]}, "a": 1}, {"a": 2, "b": {"c": 7}}], "x.json", schema).rows.to_pylist()
    assert (first["a"], first["b_c"]) == (1, None)
    assert json.loads(first["_penstock_rescued"]) == {'$."b"."d"': [3]}
    assert second["_penstock_rescued"] is None


def test_json_widens(files: _Files) -> None:
    """Integers that meet fractions widen, nothing is rounded."""
    found = files.read([{"a": 2.5}, {"a": 2}], "x.json", files.infer([{"a": 1}], "x.json"))
    assert found.rows.column("a").to_pylist() == [2.5, 2.0]
    assert kinds(found.schema) == {"a": "DOUBLE"}


@pytest.mark.parametrize("content", ['[{"a": 1}, {"a"', "5", '"x"', b"[\xff]", b"\0\0", "[" * 200_000])
def test_unreadable_documents(files: _Files, content: Any) -> None:
    """What is no whole document, or no records, is refused."""
    with pytest.raises(Unreadable):
        files.read(content, "x.json")


def test_deep_nesting_is_survived(files: _Files) -> None:
    """A record nested without sense is rejected, the others load."""
    deep = "[" * 200_000 + "]" * 200_000
    found = files.read('{"a":1}\n{"a":' + deep + '}\n{"a":2}', "x.jsonl")
    assert found.rows.column("a").to_pylist() == [1, 2]
    assert found.rejected.to_pylist()[0]["reason"] == "nested deeper than 500 levels"
    assert files.read('[{"a":' + deep + '},{"a":1}]', "x.json").rejected.num_rows == 1


def test_records_path_that_leads_nowhere(files: _Files) -> None:
    """A document without the declared path is refused by name."""
    with pytest.raises(Unreadable, match="no array or object at 'features'"):
        files.read({"other": []}, "x.json", records="features")


def parquet(path: Path, columns: dict[str, Any]) -> bytes:
    pq.write_table(pa.table(columns), path)
    return path.read_bytes()


def test_parquet_keeps_nested_types(files: _Files, tmp_path: Path) -> None:
    """Parquet's own types stay, small integers become BIGINT."""
    data = parquet(tmp_path / "p", {"Id": pa.array([1, 2], pa.int16()), "s": [{"x": 1}, None], "l": [["a"], []]})
    found = files.read(data, "x.parquet")
    assert kinds(found.schema) == {"id": "BIGINT", "s": "STRUCT(x BIGINT)", "l": "VARCHAR[]"}
    assert found.rows.to_pylist()[0] == {
        "id": 1, "s": {"x": 1}, "l": ["a"], "_penstock_row": 1, "_penstock_rescued": None,
    }  # fmt: skip


def test_parquet_against_a_schema(files: _Files, tmp_path: Path) -> None:
    """Columns match by name, new ones are rescued, a failing cast rejects the row as JSON, fractions widen."""
    schema = files.infer(parquet(tmp_path / "a", {"a": [1], "b": [1]}), "x.parquet")
    found = files.read(parquet(tmp_path / "b", {"z": [7, None], "b": ["2", "q"], "a": [1.5, 2.0]}), "x.parquet", schema)
    assert found.rows.drop_columns(["_penstock_row"]).to_pylist() == [
        {"a": 1.5, "b": 2, "_penstock_rescued": '{"z":7}'}
    ]
    (bad,) = found.rejected.to_pylist()
    assert (bad["_penstock_row"], bad["reason"]) == (2, "b: not BIGINT: q")
    assert json.loads(bad["raw"])["b"] == "q"


def test_damaged_parquet(files: _Files, tmp_path: Path) -> None:
    """A file that is no Parquet, or cut off, is refused."""
    whole = parquet(tmp_path / "a", {"a": list(range(10_000))})
    for data in (b"a,b\n1,2\n", whole[:-30], b"PAR1" + b"x" * 100 + b"PAR1", b""):
        with pytest.raises(Unreadable, match="not Parquet"):
            files.read(data, "x.parquet")


def delivery(body: bytes) -> bytes:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    headers = {"x-github-event": "issues"}
    one = Delivery(
        id="d1",
        source="github",
        dataset="d",
        received_at=at,
        content_type="application/json",
        headers=headers,
        body=body,
    )
    return envelope.encode([one])


def test_delivery(files: _Files) -> None:
    """A delivery is one row with fixed columns, to derive from."""
    derive = {"event": "headers->>'x-github-event'", "action": "payload->>'action'"}
    found = files.read(delivery(b'{"action":"opened"}'), "any", format="delivery", derive=derive)
    (row,) = found.rows.to_pylist()
    assert (row["delivery"], row["event"], row["action"]) == ("d1", "issues", "opened")
    assert row["received_at"] == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert dict(found.columns)["payload"] == "JSON"


@pytest.mark.parametrize("body", [b"a=1", b"", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_delivery_without_json(files: _Files, body: bytes) -> None:
    """A body that is no JSON is refused."""
    with pytest.raises(Unreadable):
        files.read(delivery(body), "any", format="delivery")


@pytest.mark.parametrize(
    ("key", "kind"),
    [("a/b.CSV", "csv"), ("b.tsv.gz", "tsv"), ("b.geojson", "json"), ("b.jsonl", "ndjson"), ("b.parquet", "parquet")],
)
def test_detect(key: str, kind: str) -> None:
    """The suffix says the format, compressed or not, unless the dataset says it."""
    assert detect(key, Dataset(name="d")) == kind
    assert detect(key, Dataset(name="d", format="ndjson")) == "ndjson"


def test_unknown_suffix() -> None:
    """An unknown suffix is refused, naming those that are known."""
    with pytest.raises(Unreadable, match=r"\.csv .*\.parquet"):
        detect("a/b.docx", Dataset(name="d"))


@pytest.mark.parametrize(
    ("total", "rejected", "threshold", "good"), [(0, 0, 1.0, True), (10, 1, 0.9, True), (10, 2, 0.9, False)]
)
def test_verdict(total: int, rejected: int, threshold: float, good: bool) -> None:
    """An object loads when the share of good rows reaches the threshold."""
    assert verdict(total, rejected, threshold) is good


def test_reports_add_up() -> None:
    """Aggregates are JSON-able, and the reports of two loads add."""
    dataset = Dataset(name="d", report={"n": "count(*)", "sum": "sum(x)", "kinds": "histogram(k)"})
    one = report(pa.table({"x": [1, 2], "k": ["a", "b"]}), dataset)
    assert json.loads(json.dumps(one)) == {"n": 2, "sum": 3, "kinds": {"a": 1, "b": 1}}
    none = report(pa.table({"x": pa.array([], pa.int64()), "k": pa.array([], pa.string())}), dataset)
    two = merge_reports(merge_reports(one, one), none)
    assert two == {"n": 4, "sum": 6, "kinds": {"a": 2, "b": 2}}


def test_faulty_report_is_named() -> None:
    """A report that cannot be evaluated names dataset and expression."""
    with pytest.raises(DeclarationError, match="dataset d: report r 'sum\\(nope\\)'"):
        report(pa.table({"x": [1]}), Dataset(name="d", report={"r": "sum(nope)"}))
