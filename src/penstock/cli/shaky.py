"""Where a type that was inferred from one file may be wrong for the next, and where a document's records are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from penstock import formats
from penstock.cli.dataset_file import Hint
from penstock.declarations import Dataset
from penstock.formats.engine import cursor
from penstock.formats.names import json_keys
from penstock.formats.plain import plain_file
from penstock.model import NAME, Column, Schema
from penstock.quoting import quoted

# A text column is worth a hint when so many of its values are numbers.
_MOSTLY = 0.9
_ENOUGH = 20
_MOST_COLUMNS = 500
# Those in which CSV that is not UTF-8 mostly comes: Western, Central European, Cyrillic, DOS, Mac.
_ENCODINGS = ("windows-1252", "windows-1250", "iso-8859-2", "windows-1251", "cp850", "mac-roman")
_SHOWN = 40
_WORD = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")

_DAY_AND_MONTH = r"\s*([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4}|[0-9]{2})\b.*"
_NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What the texts of a column look like, counted. `early` have a day or month up to 12 in both places."""

    given: int
    zeros: int
    long: int
    numbers: int
    dates: int
    early: int


def hints(path: Path, key: str, dataset: Dataset, schema: Schema) -> list[Hint]:
    """The columns of a CSV or TSV file whose type is shaky, in the file's order. Raises Unreadable."""
    if formats.detect(key, dataset) not in ("csv", "tsv"):
        return []  # the others say themselves what is a number
    texts = replace(schema, columns=tuple(replace(column, type="VARCHAR") for column in schema.columns))
    rows = formats.read(path, key, dataset, texts).rows
    sayable = [column for column in schema.columns if NAME.match(column.name)][:_MOST_COLUMNS]
    counted = _counted(rows, sayable)
    found = [hint_for(column, texts) for column, texts in zip(sayable, counted, strict=True)]
    return [hint for hint in found if hint is not None]


def hint_for(column: Column, texts: Texts) -> Hint | None:
    """What to say of a column; None where its type is sure."""
    kind = column.type.upper()
    if why := _why_text(kind, texts):
        return Hint(column=column.name, type="VARCHAR", why=why, said=True)
    if not texts.given:
        why = "No value in the example: it is text until a type is said."
        return Hint(column=column.name, type="DOUBLE", why=why, said=False)
    mostly = _MOSTLY <= texts.numbers / texts.given < 1
    if kind == "VARCHAR" and texts.given >= _ENOUGH and mostly and not texts.zeros:
        why = f"{texts.numbers} of {texts.given} values are numbers: as such, rows with another are rejected."
        return Hint(column=column.name, type="DOUBLE", why=why, said=False)
    return None


def _why_text(kind: str, texts: Texts) -> str | None:
    """Why the values must be kept as they stand there, where any other type might lose or turn some."""
    if texts.given and texts.dates == texts.early == texts.given:
        return 'Day or month first? No value tells. For dates say "DATE" and csv=Csv(date="%d/%m/%Y").'
    if texts.zeros and kind != "VARCHAR":
        return "Some values begin with 0, which a number would lose."
    if texts.long and kind in ("DOUBLE", "FLOAT"):
        return "Some values have more digits than a DOUBLE keeps."
    return None


def records_in(path: Path, key: str, dataset: Dataset, schema: Schema) -> str | None:
    """The path to a JSON document's records, where most of it is one list of objects; else None. Raises Unreadable."""
    if formats.detect(key, dataset) != "json":
        return None
    trees = [column for column in schema.columns if column.type.upper() == "JSON"]
    result = formats.read(path, key, dataset, schema)
    if result.total != 1 or not result.rows.num_rows:
        return None
    row = result.rows.slice(0, 1)
    sizes = {name: len(str(row.column(name)[0].as_py() or "")) for name, _ in result.columns}
    for column in trees:
        keys = json_keys(column.original)
        if sizes[column.name] * 2 > sum(sizes.values()) and all(_WORD.match(key) for key in keys):
            value = json.loads(row.column(column.name)[0].as_py() or "null")
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                return ".".join(keys)
    return None


def readings(path: Path, number: int | None) -> list[tuple[str, str]]:
    """How a line of a text would read in encodings that are common, by their names; the first in doubt without one.

    Those that read it alike are one, under the first's name. Raises Unreadable.
    """
    with plain_file(path) as plain, plain.open("rb") as file:
        lines = (line for at, line in enumerate(file, start=1) if at == number or (not number and not line.isascii()))
        line = next(lines, b"").strip()
    found: dict[str, str] = {}
    for encoding in _ENCODINGS:
        with suppress(UnicodeDecodeError):
            text = line.decode(encoding)
            begin = max(0, next((at for at, letter in enumerate(text) if not letter.isascii()), 0) - _SHOWN // 2)
            found.setdefault(text[begin : begin + _SHOWN], encoding)
    return [(encoding, text) for text, encoding in found.items()]


def reserved_words() -> frozenset[str]:
    """What SQL does not take for a column's name, unless it is quoted."""
    with cursor() as connection:
        found = connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        ).fetchall()
    return frozenset(name for (name,) in found)


def _counted(rows: pa.Table, columns: Sequence[Column]) -> list[Texts]:
    found = []
    with cursor() as connection:
        connection.register("texts", rows)
        for column in columns:
            value = quoted(column.name)
            first, second = (
                f"TRY_CAST(regexp_extract({value}, '{_DAY_AND_MONTH}', {place}) AS INTEGER)" for place in (1, 2)
            )
            dated = f"regexp_full_match({value}, '{_DAY_AND_MONTH}')"
            told = connection.execute(
                f"SELECT count({value}), "
                f"count(*) FILTER (regexp_full_match({value}, '\\s*0[0-9]+\\s*')), "
                f"count(*) FILTER (regexp_full_match({value}, '\\s*[+-]?[0-9]{{16,}}\\s*')), "
                f"count(*) FILTER (regexp_full_match({value}, '{_NUMBER}')), "
                f"count(*) FILTER ({dated}), count(*) FILTER ({dated} AND {first} <= 12 AND {second} <= 12) FROM texts"
            ).fetchone()
            assert told is not None
            given, zeros, long, numbers, dates, early = told
            found.append(Texts(given=given, zeros=zeros, long=long, numbers=numbers, dates=dates, early=early))
    return found
