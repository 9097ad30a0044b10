"""One file with every type and the values at its ends, in both warehouses; `docs/formats.md` says what differs."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import duckdb
import pytest

from penstock import Dataset
from penstock.errors import DoesNotFit
from penstock.formats import infer, read
from penstock.warehouse.base import LoadPart
from tests.conformance.warehouses import MAKERS, NOW, part, ref

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
LONG = "\U0001f600" * 16_384

# By the type as it is read: SQL for its values, how DuckDB tells them, and how PostgreSQL does where that is another
# value and not only written in another way.
VALUES: dict[str, list[tuple[str, str, str | None]]] = {
    "BOOLEAN": [("true", "true", None), ("false", "false", None)],
    "BIGINT": [(f"CAST('{number}' AS BIGINT)", str(number), None) for number in (-(2**63), 0, 2**63 - 1)],
    "DOUBLE": [
        (f"CAST('{number}' AS DOUBLE)", number, None)
        for number in ("0.1", "-0.0", "nan", "inf", "-inf", "1.7976931348623157e+308", "5e-324")
    ],
    "DECIMAL(20,0)": [("CAST(18446744073709551615 AS UBIGINT)", str(2**64 - 1), None)],
    "DECIMAL(38,10)": [
        (f"CAST('{number}' AS DECIMAL(38,10))", number, None)
        for number in ("9" * 28 + "." + "9" * 10, "-0.0000000001", "0.0000000000")
    ],
    "DATE": [
        (f"DATE '{day}'", day, None)
        for day in ("0001-01-01", "9999-12-31", "10000-01-01", "0044-03-15 (BC)", "4714-11-24 (BC)", "infinity")
    ],
    "TIME": [(f"TIME '{hour}'", hour, None) for hour in ("00:00:00", "23:59:59.999999")],
    "TIME_NS": [("TIME_NS '23:59:59.999999999'", "23:59:59.999999999", None)],
    "TIMESTAMP": [
        (f"TIMESTAMP '{at}'", at, None)
        for at in ("2024-02-29 12:34:56.789012", "0044-03-15 (BC) 12:00:00", "9999-12-31 23:59:59.999999", "-infinity")
    ],
    "TIMESTAMP_NS": [
        (
            "TIMESTAMP_NS '2024-02-29 12:34:56.123456789'",
            "2024-02-29 12:34:56.123456789",
            "2024-02-29 12:34:56.123457",
        )
    ],
    "TIMESTAMP WITH TIME ZONE": [
        ("TIMESTAMPTZ '2024-02-29 12:00:00.000001+05:30'", "2024-02-29 06:30:00.000001+00", None),
        ("TIMESTAMPTZ '0044-03-15 (BC) 12:00:00+00'", "0044-03-15 (BC) 12:00:00+00", None),
    ],
    "INTERVAL": [("INTERVAL '14 months 3 days 4 seconds'", "1 year 2 months 3 days 00:00:04", None)],
    "UUID": [("UUID '11111111-2222-3333-4444-555555555555'", "11111111-2222-3333-4444-555555555555", None)],
    "VARCHAR": [
        ("''", "", None),
        ("' \U0001f600\n\t\"\\'", ' \U0001f600\n\t"\\', None),
        (f"'{LONG}'", LONG, None),
        ("'a' || chr(0) || 'b'", "a\0b", "a\ufffdb"),
    ],
    "BLOB": [("CAST('\\x00\\xFF' AS BLOB)", "\\x00\\xFF", None), ("CAST('' AS BLOB)", "", None)],
    "JSON": [
        ("""CAST('{"b":1,"a":[1.50,null]}' AS JSON)""", '{"b":1,"a":[1.50,null]}', '{"a": [1.50, null], "b": 1}'),
        ("""CAST('"x"' AS JSON)""", '"x"', None),
    ],
    "BIGINT[]": [
        ("[1, NULL, -9223372036854775808]", "[1, NULL, -9223372036854775808]", None),
        ("[]::BIGINT[]", "[]", None),
    ],
    "STRUCT(a BIGINT, b VARCHAR)": [("{'a': CAST(1 AS BIGINT), 'b': 'x'}", "{'a': 1, 'b': x}", None)],
    "MAP(VARCHAR, BIGINT)": [("MAP {'k': CAST(1 AS BIGINT)}", "{k=1}", None)],
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A column of a table in a warehouse: its type, and its values as texts."""

    type: str
    values: list[str | None]


def file_of_all(path: Path) -> None:
    """A Parquet file with a column for each type, and one row more than the longest has values."""
    rows = zip_longest(*([sql for sql, _, _ in values] for values in VALUES.values()), fillvalue="NULL")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        selects = [", ".join(f"{sql} AS c{place}" for place, sql in enumerate(row)) for row in rows]
        selects.append(", ".join(f"NULL AS c{place}" for place in range(len(VALUES))))
        connection.execute(
            f"COPY (SELECT {' UNION ALL SELECT '.join(selects)}) TO '{path}' (FORMAT parquet, PRESERVE_ORDER true)"
        )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    """By warehouse, its columns in the order of VALUES."""
    folder = tmp_path_factory.mktemp("both")
    path = folder / "all.parquet"
    file_of_all(path)
    dataset = Dataset(name="sales")
    result = read(path, path.name, dataset, infer(path, path.name, dataset))
    assert [kind for _, kind in result.columns] == list(VALUES), "the file was not read as is said here"
    assert not result.rejected.num_rows
    found: dict[str, list[Seen]] = {}
    arrived = LoadPart(ref=ref("all.parquet"), rows=result.rows, rejected=result.rejected)
    for kind, make in MAKERS.items():
        (folder / kind).mkdir()
        with ExitStack() as stack:
            warehouse = stack.enter_context(make(folder / kind)).warehouse
            warehouse.load("sales", result.columns, [arrived], token=1, run="r1", now=NOW)
            texts = ", ".join(f"CAST(c{place} AS VARCHAR)" for place in range(len(VALUES)))
            values = warehouse.query(f"SELECT {texts} FROM sales ORDER BY _penstock_row", limit=100).rows
            types = (
                "SELECT column_type FROM (DESCRIBE sales)"
                if kind == "duckdb"
                else "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = 'sales'::regclass AND attnum > 0 ORDER BY attnum"
            )
            named = [str(row[0]) for row in warehouse.query(types, limit=100).rows][: len(VALUES)]
            found[kind] = [
                Seen(type=name, values=list(column))
                for name, column in zip(named, zip(*values, strict=True), strict=True)
            ]
    return found


def told(text: str, kind: str) -> str:
    """PostgreSQL's text of a value as DuckDB writes it."""
    if kind == "DOUBLE":
        words = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf", "-0": "-0.0"}
        return words.get(text, text)
    if kind == "BLOB":
        return "".join(f"\\x{text[at : at + 2].upper()}" for at in range(2, len(text), 2))
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE") and text.endswith(" BC"):
        day, _, rest = text.removesuffix(" BC").partition(" ")
        return f"{day} (BC) {rest}".strip()
    if kind == "INTERVAL":
        return re.sub(r"\bmons?\b", "months", text)
    written = {
        "[1, null, -9223372036854775808]": "[1, NULL, -9223372036854775808]",
        '{"a": 1, "b": "x"}': "{'a': 1, 'b': x}",
        '{"k": 1}': "{k=1}",
    }
    return written.get(text, text)


@pytest.mark.parametrize("kind", VALUES)
def test_both_warehouses_hold_the_same(seen: dict[str, list[Seen]], kind: str) -> None:
    """Every value comes back equal from DuckDB; from PostgreSQL too, but where the table of the docs says so."""
    place = list(VALUES).index(kind)
    expected = VALUES[kind]
    rows = max(map(len, VALUES.values())) + 1
    nothing = [None] * (rows - len(expected))
    assert seen["duckdb"][place].type == kind
    assert seen["duckdb"][place].values == [text for _, text, _ in expected] + nothing
    found = [None if text is None else told(text, kind) for text in seen["postgres"][place].values]
    assert found == [other or text for _, text, other in expected] + nothing


def test_the_docs_say_what_was_seen(seen: dict[str, list[Seen]]) -> None:
    """The table 'Types in the two warehouses' has each type, PostgreSQL's for it, and a word where a value differs."""
    _, _, rest = DOCS.read_text().partition("## Types in the two warehouses")
    table = [
        re.split(r"\s*(?<!\\)\|\s*", line.strip().strip("|").strip())
        for line in rest.split("\n## ")[0].splitlines()
        if line.startswith("| `")
    ]
    said = {row[0].strip("`"): (row[1].strip("`"), bool(row[2])) for row in table}
    was = {
        kind: (seen["postgres"][place].type, any(other is not None for _, _, other in VALUES[kind]))
        for place, kind in enumerate(VALUES)
    }
    assert said == was


@pytest.mark.parametrize(
    "value", ["DATE '5881580-07-10'", "DATE '5877642-06-25 (BC)'", "TIMESTAMP '4715-01-01 (BC) 00:00:00'"]
)
def test_what_postgresql_has_no_place_for_is_said(tmp_path: Path, value: str) -> None:
    """A time that only DuckDB has is loaded there, and ends in quarantine with a reason here."""
    path = tmp_path / "x.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {value} AS at) TO '{path}' (FORMAT parquet)")
    dataset = Dataset(name="sales")
    result = read(path, path.name, dataset, infer(path, path.name, dataset))
    arrived = LoadPart(ref=ref("x.parquet"), rows=result.rows, rejected=result.rejected)
    with (
        MAKERS["postgres"](tmp_path) as bench,
        pytest.raises(DoesNotFit, match=r"does not take the rows: .*out of range"),
    ):
        bench.warehouse.load("sales", result.columns, [arrived], token=1, run="r1", now=NOW)


def test_more_columns_than_postgresql_has_are_said(tmp_path: Path) -> None:
    """A table ends there at 1,600 columns; the reason says so."""
    names = [f"c{number}" for number in range(1601)]
    wide = part("x.parquet", {name: [1] for name in names})
    with MAKERS["postgres"](tmp_path) as bench, pytest.raises(DoesNotFit, match="at most 1600 columns"):
        bench.warehouse.load("sales", [(name, "BIGINT") for name in names], [wide], token=1, run="r1", now=NOW)
