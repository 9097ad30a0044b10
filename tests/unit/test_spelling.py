"""A column that a later object spells otherwise is the same column."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.formats.evolve import evolved
from penstock.formats.names import places_of
from tests.unit.test_formats_together import compare, first_schema

PLAIN = Dataset(name="d")


@pytest.mark.parametrize(
    ("originals", "columns", "expected"),
    [
        (["a", "b"], ["b", "a"], [1, 0]),
        (["City Name"], ["city_name"], [0]),
        (["  größe (CM) "], ["Größe cm"], [0]),
        (["E-Mail"], ["e mail"], [0]),
        (["Prénom"], ["prenom"], [0]),
        (["email"], ["e-mail"], [None]),
        (["A", "a"], ["a", "A"], [1, 0]),
        (["a", "a"], ["a", "a"], [0, 1]),
        (["ID", "Id"], ["id", "id"], [0, 1]),
        (["ID", "id"], ["id"], [1]),
        (["#"], ["%"], [None]),
        (["#"], ["#"], [0]),
        (["at_x"], ['$."at"."x"'], [0]),
        (['$."At"."X"'], ['$."at"."x"'], [0]),
        (['$."at_x"'], ['$."at"."x"'], [None]),
        (["x" * 80 + "1"], ["x" * 80 + "2"], [None]),
    ],
)
def test_where_a_column_is(originals: list[str], columns: list[str], expected: list[int | None]) -> None:
    """The name itself first, then another spelling; signs alone are told apart, and so are the ends of long names."""
    assert places_of(originals, columns) == expected


def test_csv(tmp_path: Path) -> None:
    """Nothing is rescued of another spelling, and nothing new grows; alone and together."""
    schema = first_schema(tmp_path, b"Order ID,Unit Price\n1,2\n", "csv", PLAIN)
    contents = [b"order_id,UNIT-PRICE\n3,4\n", b"unit price,Order Id,more\n5,6,x\n", b"Order ID,Unit Price\n7,8\n"]
    assert set(compare(tmp_path, [*contents, *contents], "csv", PLAIN, schema)) == set(range(6))
    found = formats.read(tmp_path / "1", "x.csv", PLAIN, schema)
    assert found.rows.to_pylist() == [
        {"order_id": 6, "unit_price": 5, "_penstock_row": 1, "_penstock_rescued": '{"more":"x"}'}
    ]
    other = first_schema(tmp_path, contents[1], "csv", PLAIN)
    assert [column.name for column in evolved(schema, other).columns] == ["order_id", "unit_price", "more"]


def test_parquet(tmp_path: Path) -> None:
    """As with CSV."""
    contents = []
    for names in (["Order ID", "b"], ["order_id", "B"], ["ORDER ID", "b"]):
        sink = io.BytesIO()
        pa.parquet.write_table(pa.table({name: [1, 2] for name in names}), sink)
        contents.append(sink.getvalue())
    schema = first_schema(tmp_path, contents[0], "parquet", PLAIN)
    compare(tmp_path, [*contents, contents[1]], "parquet", PLAIN, schema)
    found = formats.read(tmp_path / "1", "x.parquet", PLAIN, schema)
    assert found.rows.select(["order_id", "b", "_penstock_rescued"]).to_pylist() == [
        {"order_id": number, "b": number, "_penstock_rescued": None} for number in (1, 2)
    ]


@pytest.mark.parametrize(
    ("record", "expected", "rescued"),
    [
        ('{"Id": 3, "AT": {"x": 4}}', [3, 4, None], None),
        ('{"Id": 3, "id": 5}', [5, None, None], {'$."Id"': 3}),
        ('{"ID": 3, "Id": 4}', [3, None, None], {'$."Id"': 4}),
        ('{"id": 1, "Tags": {"a": 1}}', [1, None, '{"a":1}'], None),
        ('{"id": 1, "at_x": 9}', [1, None, None], {'$."at_x"': 9}),
    ],
    ids=["other", "both", "two others", "a whole tree", "a path is none"],
)
def test_json(tmp_path: Path, record: str, expected: list[Any], rescued: Any) -> None:
    """Key by key; where an object has the name itself, another spelling of it is another column."""
    schema = first_schema(tmp_path, b'[{"id": 1, "at": {"x": 2}, "tags": ["a"]}]', "json", PLAIN)
    contents = [record.encode(), b'[{"id": 1, "at": {"x": 2}}]', record.encode()]
    for form in ("json", "ndjson"):
        assert set(compare(tmp_path, contents, form, PLAIN, schema)) == {0, 1, 2}
    (row,) = formats.read(tmp_path / "0", "x.json", PLAIN, schema).rows.to_pylist()
    assert [row["id"], row["at_x"], row["tags"]] == expected
    assert (json.loads(row["_penstock_rescued"]) if row["_penstock_rescued"] else None) == rescued
