"""JSON whose objects are kept whole: one column for each key of a record; and JSON in other encodings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.evolve import evolved
from penstock.model import Schema
from tests.unit.test_formats_together import compare, first_schema

KEPT = Dataset(name="d", nested="keep")
FIRST = b'[{"id": 1, "at": {"x": 1, "y": {"z": 2}}, "tags": ["a"], "mixed": {"a": 1}}, {"id": 2, "mixed": 7}]'


def types(schema: Schema) -> dict[str, str]:
    return {column.name: column.type for column in schema.columns}


def rows(folder: Path, content: bytes, dataset: Dataset, schema: Schema, name: str = "x.json") -> Any:
    (folder / "later").write_bytes(content)
    return formats.read(folder / "later", name, dataset, schema).rows.to_pylist()


def test_objects_are_kept_whole(tmp_path: Path) -> None:
    """An object is one JSON column of its name, whatever else later records have in its place."""
    schema = first_schema(tmp_path, FIRST, "json", KEPT)
    assert types(schema) == {"id": "BIGINT", "at": "JSON", "tags": "JSON", "mixed": "JSON"}
    first, second = rows(tmp_path, FIRST, KEPT, schema)
    assert json.loads(first["at"]) == {"x": 1, "y": {"z": 2}}
    assert (first["tags"], first["mixed"], second["at"], second["mixed"]) == ('["a"]', '{"a":1}', None, "7")
    (later,) = rows(tmp_path, b'{"id": 3, "at": {"new": true}, "other": {"deep": [1]}}', KEPT, schema)
    assert json.loads(later["at"]) == {"new": True}
    assert json.loads(later["_penstock_rescued"]) == {'$."other"': {"deep": [1]}}


def test_a_new_object_becomes_one_column(tmp_path: Path) -> None:
    """Where the schema evolves."""
    schema = first_schema(tmp_path, b'{"id": 1}', "json", KEPT)
    found = first_schema(tmp_path, b'{"id": 1, "at": {"x": 1}}', "json", KEPT)
    assert types(evolved(schema, found)) == {"id": "BIGINT", "at": "JSON"}


def test_a_path_to_the_records_and_hints(tmp_path: Path) -> None:
    """Both work as they do with flattened objects."""
    geometry = "STRUCT(type VARCHAR, coordinates DOUBLE[])"
    dataset = Dataset(name="d", nested="keep", records="features", columns={"geometry": geometry})
    content = b'{"features": [{"properties": {"mag": 1}, "geometry": {"type": "Point", "coordinates": [1, 2.5]}}]}'
    schema = first_schema(tmp_path, content, "json", dataset)
    assert types(schema) == {"properties": "JSON", "geometry": geometry}
    (row,) = rows(tmp_path, content, dataset, schema)
    assert row["geometry"] == {"type": "Point", "coordinates": [1.0, 2.5]}
    (tmp_path / "bad").write_bytes(b'{"features": [{"geometry": 7}]}')
    assert formats.read(tmp_path / "bad", "x.json", dataset, schema).rejected.num_rows == 1


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_kept_together_is_as_alone(tmp_path: Path, form: str) -> None:
    """Small objects that are read at once keep theirs too, and what is new is rescued whole."""
    schema = first_schema(tmp_path, b'{"id": 1, "at": {"x": 1}}', form, KEPT)
    contents = [
        b'{"id": 1, "at": {"x": 1}}',
        b'{"id": 2, "at": {"y": {"z": null}}, "more": {"a": 1}}',
        b'{"id": 3, "At": {"x": 1}}',
        b'{"id": "x", "at": 7}',
        b'{"id": 5, "at": null}',
    ]
    assert set(compare(tmp_path, contents, form, KEPT, schema)) == set(range(5))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, form: str, encoding: str) -> None:
    """JSON is read as CSV is, alone or among others."""
    plain = Dataset(name="d")
    text = '{"id": 1, "name": "Größe 山"}'
    mark = "\ufeff" if encoding.endswith("-be") else ""
    content = (mark + text).encode(encoding)
    schema = first_schema(tmp_path, content, form, plain)
    assert types(schema) == {"id": "BIGINT", "name": "VARCHAR"}
    assert rows(tmp_path, content, plain, schema, f"x.{form}")[0]["name"] == "Größe 山"
    compare(tmp_path, [content, text.encode(), content], form, plain, schema)


def test_without_a_mark_nothing_is_guessed(tmp_path: Path) -> None:
    """Other bytes than UTF-8 are refused."""
    for content in ('{"a": "é"}'.encode("latin-1"), '{"a": 1}'.encode("utf-16-le")):
        with pytest.raises(Unreadable, match=r"not UTF-8|not text"):
            first_schema(tmp_path, content, "json", Dataset(name="d"))
