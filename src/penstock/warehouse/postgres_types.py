"""DuckDB's types and values in PostgreSQL's words. Pure, but for the DuckDB that writes the values.

The rows go from Arrow through DuckDB's casts into CSV and into COPY, so that no Python object is made of a value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv

from penstock.machine_faults import raise_machine_fault
from penstock.quoting import quoted
from penstock.warehouse.base import LOADED_AT
from penstock.widening import NOTHING, TEXT, nested

# What PostgreSQL keeps of a name, in bytes.
LONGEST_NAME = 63
_ROWS_AT_ONCE = 16_384
_FORM = pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")

_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "smallint",
    "UTINYINT": "smallint",
    "SMALLINT": "smallint",
    "USMALLINT": "integer",
    "INTEGER": "integer",
    "UINTEGER": "bigint",
    "BIGINT": "bigint",
    "UBIGINT": "numeric",
    "HUGEINT": "numeric",
    "UHUGEINT": "numeric",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "DATE": "date",
    "TIME": "time",
    "TIME WITH TIME ZONE": "timetz",
    "TIMETZ": "timetz",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP_NS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "TIMESTAMPTZ": "timestamptz",
    "INTERVAL": "interval",
    "UUID": "uuid",
    "BLOB": "bytea",
    "JSON": "jsonb",
}
_DECIMAL = re.compile(r"^DECIMAL\((\d+), ?(\d+)\)$")

# Of PostgreSQL's types those that the lattice knows, in DuckDB's words.
_LIKE = {
    "boolean": "BOOLEAN",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "numeric": "HUGEINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "time without time zone": "TIME",
    "timetz": "TIME WITH TIME ZONE",
    "time with time zone": "TIME WITH TIME ZONE",
    "timestamp": "TIMESTAMP",
    "timestamp without time zone": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "bytea": "BLOB",
    "jsonb": "JSON",
    "text": TEXT,
}

# Every table of PostgreSQL has columns of these names already.
_SYSTEM = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}


def column_type(kind: str) -> str:
    """PostgreSQL's type for a DuckDB type; text for whatever has no like there."""
    upper = kind.upper()
    if nested(kind):
        return "jsonb"
    if found := _DECIMAL.match(upper):
        return f"numeric({found[1]}, {found[2]})"
    return _TYPES.get(upper, "text")


def like(there: str) -> str:
    """PostgreSQL's type in DuckDB's words; as it is where DuckDB has none like it."""
    decimal = re.match(r"numeric\((\d+), ?(\d+)\)", there)
    return f"DECIMAL({decimal[1]},{decimal[2]})" if decimal else _LIKE.get(there, there)


def as_kept(kind: str) -> str:
    """What is left of DuckDB's type `kind` when PostgreSQL keeps its values, in DuckDB's words."""
    return kind if kind.upper() in NOTHING else like(column_type(kind))


def as_text(column: str, there: str) -> str:
    """A value of PostgreSQL's type `there` as the text that DuckDB makes of it, as far as the two differ in much."""
    if there in ("real", "double precision"):
        return f"CASE WHEN {column}::text ~ '^-?[0-9]+$' THEN {column}::text || '.0' ELSE {column}::text END"
    return f"{column}::text"


def table_name(name: str) -> str:
    """A name that PostgreSQL keeps whole: one that is too long is cut, and told apart by a hash."""
    raw = name.encode()
    if len(raw) <= LONGEST_NAME:
        return name
    mark = "_" + hashlib.sha256(raw).hexdigest()[:8]
    return raw[: LONGEST_NAME - len(mark)].decode(errors="ignore") + mark


def column_name(name: str) -> str:
    """As `table_name`; a name that every table has already gets a `_` at its end."""
    return table_name(f"{name}_" if name in _SYSTEM else name)


def csv(rows: pa.Table, columns: Sequence[tuple[str, str]], now: datetime) -> Iterator[bytes]:
    """The columns (name and DuckDB type) of `rows` and then `now`, as CSV for COPY, some thousand rows at a time."""
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
        connection.register("arriving", rows)
        values = [f"{_text(quoted(name), kind)} AS {quoted(name)}" for name, kind in columns]
        values.append(f"CAST(CAST(? AS TIMESTAMPTZ) AS VARCHAR) AS {LOADED_AT}")
        found = connection.execute(f"SELECT {', '.join(values)} FROM arriving", [now])
        for batch in found.to_arrow_reader(_ROWS_AT_ONCE):
            written = pa.BufferOutputStream()
            pa_csv.write_csv(batch, written, _FORM)
            yield written.getvalue().to_pybytes()
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise
    finally:
        connection.close()


def _text(value: str, kind: str) -> str:
    upper = kind.upper()
    wanted = column_type(kind)
    if wanted == "jsonb":
        return _json(value if upper == "JSON" else f"to_json({value})", value)
    if wanted == "bytea":
        return f"'\\x' || hex(CAST({value} AS BLOB))"
    if wanted == "text":
        return f"replace(CAST({value} AS VARCHAR), chr(0), '\ufffd')"
    plain = f"CAST(CAST({value} AS {kind}) AS VARCHAR)"
    return f"replace({plain}, ' (BC)', ' BC')" if wanted in ("date", "timestamp", "timestamptz") else plain


def _json(json: str, value: str) -> str:
    # Twice, because of two in a row the first match takes the character that the second must look at.
    mended = text = f"replace(CAST({json} AS VARCHAR), chr(0), '\ufffd')"
    for _ in range(2):
        mended = rf"regexp_replace({mended}, '((?:^|[^\\])(?:\\\\)*)\\u0000', '\1\\ufffd', 'g')"
    return rf"CASE WHEN {value} IS NULL THEN NULL WHEN contains({text}, '\u0000') THEN {mended} ELSE {text} END"
