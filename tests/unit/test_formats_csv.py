"""Reading CSV and TSV."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult, infer, read
from penstock.model import Schema

Read = Callable[..., ReadResult]
SALES = "id,name,qty\n1,a,2\n2,b,3\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def run(content: str | bytes) -> Path:
        path = tmp_path / "object"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return run


@pytest.fixture
def rd(write: Callable[[str | bytes], Path]) -> Read:
    def run(content: str | bytes, *, schema: Schema | None = None, key: str = "x.csv", **declared: Any) -> ReadResult:
        dataset, path = Dataset(name="sales", **declared), write(content)
        return read(path, key, dataset, schema or infer(path, key, dataset))

    return run


@pytest.fixture
def sales(write: Callable[[str | bytes], Path]) -> Schema:
    return infer(write(SALES), "x.csv", Dataset(name="sales"))


def kinds(schema: Schema) -> dict[str, str]:
    return {column.name: column.type for column in schema.columns}


def test_inference_covers_the_whole_file(write: Callable[[str | bytes], Path]) -> None:
    """Types fit the last row too, hints win, and original names and dialect are kept."""
    text = "Id;Cost Total $;day;note\n" + "1;2;2026-01-02;a\n" * 30_000 + "1;2.5;2026-01-03;b\n"
    schema = infer(write(text), "x.csv", Dataset(name="s", columns={"id": "VARCHAR"}))
    assert kinds(schema) == {"id": "VARCHAR", "cost_total": "DOUBLE", "day": "DATE", "note": "VARCHAR"}
    assert [column.original for column in schema.columns] == ["Id", "Cost Total $", "day", "note"]
    assert schema.dialect["delim"] == ";"


def test_rows_are_typed_and_numbered(rd: Read) -> None:
    """Columns keep their order, then come row number and rescued values."""
    found = rd(SALES)
    assert found.rows.column_names == ["id", "name", "qty", "_penstock_row", "_penstock_rescued"]
    assert found.rows.to_pylist()[1] == {"id": 2, "name": "b", "qty": 3, "_penstock_row": 2, "_penstock_rescued": None}
    assert (found.total, found.rejected.num_rows) == (2, 0)
    assert found.columns == (("id", "BIGINT"), ("name", "VARCHAR"), ("qty", "BIGINT"))


def test_bad_rows_never_take_good_ones_along(rd: Read, sales: Schema) -> None:
    """Casts, field counts and quoting reject their own row, with line, reason and raw text."""
    text = 'id,name,qty\n1,a,2\nq,b,3\n3,c\n4,d,5,6\n5,"x"y,6\n6,f,7\n\n7,g,8,9\n8,h,1\n'
    found = rd(text, schema=sales)
    assert found.rows.column("id").to_pylist() == [1, 6, 8]
    assert found.rows.column("_penstock_row").to_pylist() == [1, 6, 8]
    assert found.total == 8
    assert [tuple(row.values()) for row in found.rejected.to_pylist()] == [
        (2, 3, "id: not BIGINT: q", "q,b,3", "id", None),
        (3, 4, "too few fields", "3,c", None, None),
        (4, 5, "too many fields", "4,d,5,6", None, None),
        (5, 6, "bad quoting", '5,"x"y,6', None, None),
        (7, 9, "too many fields", "7,g,8,9", None, None),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_open_quote_swallows_no_rows(rd: Read, sales: Schema, end: str) -> None:
    """A quote that is never closed costs its own line only, wherever the next quote is."""
    lines = ["id,name,qty", "1,a,2", '2,"b,3', "3,c,4", '4,"d",5', '5,"e,6', "6,f,7", ""]
    found = rd(end.join(lines), schema=sales)
    assert found.rows.column("id").to_pylist() == [1, 3, 4, 6]
    assert found.rows.column("_penstock_row").to_pylist() == [1, 3, 4, 6]
    assert [(row["_penstock_row"], row["reason"], row["raw"]) for row in found.rejected.to_pylist()] == [
        (2, "bad quoting", '2,"b,3'),
        (5, "bad quoting", '5,"e,6'),
    ]


def test_a_value_may_hold_newlines(rd: Read, sales: Schema) -> None:
    """A quoted newline is data; a bad row of such a file is kept as JSON, its line unknown."""
    found = rd('id,name,qty\n1,"a\nb",2\nq,c,3\n', schema=sales)
    assert found.rows.column("name").to_pylist() == ["a\nb"]
    (bad,) = found.rejected.to_pylist()
    assert (bad["_penstock_row"], bad["line"]) == (2, None)
    assert json.loads(bad["raw"]) == {"id": "q", "name": "c", "qty": "3"}


def test_columns_are_matched_by_header(rd: Read, sales: Schema) -> None:
    """Order does not matter; what the schema lacks is rescued, what the object lacks is NULL."""
    found = rd("qty,New Col,id\n5,z,1\n6,,2\n", schema=sales)
    first, second = found.rows.to_pylist()
    assert (first["id"], first["name"], first["qty"]) == (1, None, 5)
    assert json.loads(first["_penstock_rescued"]) == {"New Col": "z"}
    assert second["_penstock_rescued"] is None


def test_equal_headers_keep_their_order(rd: Read) -> None:
    """The second column of a name stays the second."""
    assert rd("a,a,A\n1,x,2\n").rows.select(["a", "a_2", "a_3"]).to_pylist() == [{"a": 1, "a_2": "x", "a_3": 2}]


def test_widening(rd: Read, sales: Schema) -> None:
    """Integers that meet fractions widen to DOUBLE; the version stays."""
    found = rd("id,name,qty\n1,a,2.5\n2,b,3\n", schema=sales)
    assert found.rows.column("qty").to_pylist() == [2.5, 3.0]
    assert kinds(found.schema)["qty"] == "DOUBLE"
    assert found.schema.version == sales.version
    assert found.rejected.num_rows == 0


@pytest.mark.parametrize("other", ["x", "99999999999999999999", "nan"])
def test_no_widening_beside_other_failures(rd: Read, sales: Schema, other: str) -> None:
    """A value that is no fraction keeps the column as it is, and nothing is rounded."""
    found = rd(f"id,name,qty\n1,a,2.5\n2,b,{other}\n3,c,1\n", schema=sales)
    assert found.schema == sales
    assert found.rejected.column("_penstock_row").to_pylist() == [1, 2]


def test_hints_are_never_widened(rd: Read, sales: Schema) -> None:
    """A hinted BIGINT rejects the fraction."""
    found = rd("id,name,qty\n1,a,2.5\n", schema=sales, columns={"qty": "BIGINT"})
    assert found.rejected.to_pylist()[0]["reason"] == "qty: not BIGINT: 2.5"


def test_reason_shows_forty_characters_at_most(rd: Read, sales: Schema) -> None:
    """A long value is not repeated in the reason."""
    reason = rd(f"id,name,qty\n{'v' * 500},a,1\n", schema=sales).rejected.to_pylist()[0]["reason"]
    assert reason == "id: not BIGINT: " + "v" * 40


def test_derive_check_and_select(rd: Read) -> None:
    """Derived columns build on one another, checks see them all, and select keeps and orders."""
    found = rd(
        SALES + "3,c,\n",
        derive={"twice": "qty * 2", "four": "twice * 2 -- as said", "name": "upper(name)"},
        checks={"quantity_positive": "qty > 0", "small": "four < 12"},
        select=("name", "four"),
    )
    assert found.rows.to_pylist() == [{"name": "A", "four": 8, "_penstock_row": 1, "_penstock_rescued": None}]
    assert found.rejected.column("reason").to_pylist() == ["check small", "check quantity_positive; check small"]
    assert found.rejected.column("raw").to_pylist() == ["2,b,3", "3,c,"]


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"derive": {"d": "nope + 1"}}, "derive d 'nope \\+ 1'"),
        ({"checks": {"c": "qty >"}}, "check c 'qty >'"),
        ({"columns": {"qty": "NOTYPE"}}, "columns qty 'NOTYPE'"),
        ({"select": ("gone",)}, "select names 'gone'"),
    ],
)
def test_faulty_expression_is_named(rd: Read, declared: dict[str, Any], named: str) -> None:
    """A declaration that cannot work names dataset and expression."""
    with pytest.raises(DeclarationError, match=f"dataset sales: {named}"):
        rd(SALES, **declared)


def test_an_expression_that_fails_on_a_row_rejects_that_row(rd: Read) -> None:
    """Runtime errors of derive and checks are the row's, not the object's."""
    found = rd("id,name\n1,5\n2,x\n3,7\n", derive={"n": "CAST(name AS INT)"}, checks={"c": "CAST(name AS INT) < 7"})
    assert found.rows.column("n").to_pylist() == [5]
    assert found.rejected.column("reason").to_pylist() == ["derive n failed; check c", "check c"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + SALES.encode(),
        gzip.compress(SALES.encode(), mtime=0),
        SALES.replace("\n", "\r\n").encode(),
        SALES.rstrip().encode(),
        SALES.replace("2\n", "2\r\n").encode(),
        ("\n" + SALES).encode(),
    ],
)
def test_the_same_table_in_other_bytes(rd: Read, sales: Schema, content: bytes) -> None:
    """Byte order mark, gzip by its magic bytes, and any line ends make no difference."""
    assert rd(content, schema=sales).rows.equals(rd(SALES, schema=sales).rows)


def test_tsv_and_quotes(rd: Read, sales: Schema) -> None:
    """A schema whose first file had no quotes reads quoted fields; TSV splits at tabs only."""
    assert rd('id,name,qty\n1,"a, ""b""",2\n', schema=sales).rows.column("name").to_pylist() == ['a, "b"']
    assert rd("a\tb\n1\tx,y\n", key="x.tsv").rows.column("b").to_pylist() == ["x,y"]


@pytest.mark.parametrize("content", ["", "id,name,qty\n", "\n\n"])
def test_no_records(rd: Read, sales: Schema, write: Callable[[str | bytes], Path], content: str) -> None:
    """An object without records has total 0 and infers no columns."""
    found = rd(content, schema=sales)
    assert (found.total, found.rows.num_rows, found.rejected.num_rows) == (0, 0, 0)
    assert infer(write(content), "x.csv", Dataset(name="s")).columns == ()


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) * 50,
        b"id,name\n1,\xff\xfe\n",
        b"id\n1\x00\n",
        gzip.compress(b"id\n1\n" * 1000, mtime=0)[:-20],
        b"\x1f\x8brubbish",
        "id\n1\n".encode("utf-16")[:-1],
    ],
)
def test_rubbish_is_unreadable(rd: Read, sales: Schema, content: bytes) -> None:
    """What is no UTF-8 text is refused as a whole, with and without a schema."""
    for schema in (sales, None):
        with pytest.raises(Unreadable):
            rd(content, schema=schema)


def test_many_rows_keep_their_numbers(rd: Read, sales: Schema) -> None:
    """Numbers are right far behind a rejected line, over the reader's parallel blocks."""
    lines = [f"{i},name {i},{i}" for i in range(1, 200_001)]
    lines[99_999] = "broken"
    lines[150_000] += ",more"
    found = rd("id,name,qty\n" + "\n".join(lines), schema=sales)
    assert found.rows.column("id").equals(found.rows.column("_penstock_row"))
    assert found.rejected.column("_penstock_row").to_pylist() == [100_000, 150_001]
    assert found.rejected.column("line").to_pylist() == [100_001, 150_002]


def test_a_header_remembered_without_dialect_is_sniffed(rd: Read, sales: Schema) -> None:
    """A schema without dialect still reads."""
    assert rd(SALES, schema=replace(sales, dialect={})).total == 2


def test_formats_may_mix(rd: Read, sales: Schema, write: Callable[[str | bytes], Path]) -> None:
    """A schema learnt from CSV reads NDJSON, and the other way round."""
    assert rd('{"id":1,"name":"a","qty":2}\n', key="x.ndjson", schema=sales).rows.equals(
        rd("id,name,qty\n1,a,2\n").rows
    )
    schema = infer(write('{"id":1,"p":{"q":2}}'), "x.json", Dataset(name="s"))
    assert rd("p_q,id\n2,1\n", schema=schema).rows.select(["id", "p_q"]).to_pylist() == [{"id": 1, "p_q": 2}]
