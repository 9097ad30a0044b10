"""JSON documents and NDJSON: objects flattened to columns, each addressed by its path."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.encodings import utf8_file
from penstock.formats.engine import cursor, little_memory
from penstock.formats.json_document import array_alone, records_of_array, records_of_document
from penstock.formats.kept import Keep
from penstock.formats.names import json_keys, json_path, json_pointer, normalised, spelling
from penstock.formats.numbers import WHOLE
from penstock.formats.plain import CHUNK, text_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape
from penstock.model import Column, Schema
from penstock.quoting import literal, quoted

# DuckDB's json_structure recurses: some 50,000 levels end the process.
DEEPEST = 500
# An object used as a map would make columns without end; beyond this nested objects stay JSON.
MOST_COLUMNS = 1000
# What a record takes in memory beside its text.
_RECORD = 32
# Shorter numbers are whole in every type that is found.
_LONG = 16

# What is bad about a record; `keys` are those of its objects.
_DOUBLED = "list_filter(keys, k -> list_unique(k) < len(k))[1]"
_TWICE = (
    f"coalesce(bad, 'the key ' || to_json(list_filter({_DOUBLED}, (k, i) -> list_position({_DOUBLED}, k) < i)[1]) "
    "|| ' stands twice')"
)

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')

Keys = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The text of one object, with the `size` of its records; of a large document the `array` that these are in."""

    text: Path
    lines: bool
    size: int
    array: Path | None
    # Large, and to be read one record after another.
    streams: bool


@dataclass(frozen=True, kw_only=True)
class Strange:
    """What records have that no column says: paths that are rescued, and those of columns, spelled otherwise."""

    extra: tuple[Keys, ...] = ()
    spelled: tuple[tuple[Keys, Keys], ...] = ()


# A first event may lack the optional ones; later ones must not find them without a column.
CLOUDEVENT_ATTRIBUTES: Mapping[Keys, str] = {
    ("specversion",): "VARCHAR",
    ("id",): "VARCHAR",
    ("source",): "VARCHAR",
    ("type",): "VARCHAR",
    ("subject",): "VARCHAR",
    ("time",): "TIMESTAMP WITH TIME ZONE",
    ("datacontenttype",): "VARCHAR",
    ("dataschema",): "VARCHAR",
}


def infer(path: Path, dataset: Dataset, *, lines: bool, always: Mapping[Keys, str] | None = None) -> Schema:
    """The columns over all records, with those of `always` before them; none when there is no record.

    Raises Unreadable.
    """
    with _source(path, dataset, lines=lines) as source:
        if source.streams:
            with suppress(MemoryError):
                return _inferred(source, dataset, always=always, little=True)
        return _inferred(source, dataset, always=always, little=False)


def read(path: Path, dataset: Dataset, schema: Schema, *, lines: bool, large: bool = False) -> ReadResult:
    """The records as rows. Raises Unreadable."""
    with _source(path, dataset, lines=lines) as source:
        keep = Keep(path, size=source.size, large=large)
        if source.streams:
            # Records may be so long that few of them fill it.
            with suppress(MemoryError):
                return _shaped(source, dataset, schema, keep, little=True)
        return _shaped(source, dataset, schema, keep, little=False)


def _inferred(source: _Source, dataset: Dataset, *, always: Mapping[Keys, str] | None, little: bool) -> Schema:
    with cursor() as connection, little_memory(connection) if little else nullcontext():
        _records(connection, source, dataset)
        leaves = _leaves(connection, dataset)
        if leaves and always:
            leaves = [*always.items(), *(leaf for leaf in leaves if leaf[0] not in always)]
        names = normalised("_".join(keys) for keys, _ in leaves)
        found = Schema(
            version=1,
            columns=tuple(
                Column(name=name, original=json_path(keys), type=dataset.columns.get(name, kind))
                for name, (keys, kind) in zip(names, leaves, strict=True)
            ),
        )
        long = _too_long(connection, [c for c in found.columns if c.name not in dataset.columns])
        return replace(found, columns=tuple(replace(c, type="VARCHAR") if c in long else c for c in found.columns))


def _shaped(source: _Source, dataset: Dataset, schema: Schema, keep: Keep, *, little: bool) -> ReadResult:
    with cursor() as connection, little_memory(connection) if little else nullcontext():
        _records(connection, source, dataset)
        values = source_of(connection, "records", schema, strange_in(_leaves(connection, dataset), schema))
        return shape(connection, dataset, schema, values, keep)


def source_of(connection: duckdb.DuckDBPyConnection, records: str, schema: Schema, strange: Strange) -> list[Value]:
    """Make the view `source` over a relation like the table `records`, which has what is `strange`."""
    spelled, extra = dict(strange.spelled), strange.extra
    known = {spelled.get(keys := json_keys(column.original), keys): column for column in schema.columns}
    texts = [keys for keys, column in known.items() if column.type.upper() != "JSON"]
    trees = [keys for keys, column in known.items() if column.type.upper() == "JSON"]
    objects = sorted({(), *(keys[:end] for keys in [*known, *extra] for end in range(len(keys)))})
    keys_of = _extract("json_keys", objects)
    bad = _TWICE if _some_twice(connection, records, keys_of) else "bad"
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW source AS SELECT * EXCLUDE (bad, keys), {bad} AS {quoted(BAD)}, "
        f"{_rescued(len(trees), extra)} AS {quoted(RESCUED)} FROM ("
        f"SELECT record AS {quoted(ROW)}, line AS {quoted(LINE)}, raw AS {quoted(RAW)}, bad, {keys_of} AS keys, "
        f"{_extract('json_extract_string', texts)} AS texts, {_extract('json_extract', [*trees, *extra])} AS trees "
        f"FROM {records})"
    )
    places = {keys: f"texts[{index}]" for index, keys in enumerate(texts, start=1)}
    # A JSON null is no value.
    places |= {keys: f"{_null_out(f'trees[{index}]')}" for index, keys in enumerate(trees, start=1)}
    return [
        Value(
            column=column,
            expression=places[keys],
            kind="typed" if keys in trees else "text",
            type="JSON" if keys in trees else "VARCHAR",
        )
        for keys, column in known.items()
    ]


def depth(text: str) -> int:
    """How deep the brackets of a JSON text nest, strings left out."""
    deepest = level = 0
    for found in re.finditer(r"[\[{\]}]", _STRING.sub("", text)):
        level += 1 if found[0] in "[{" else -1
        deepest = max(deepest, level)
    return deepest


@contextmanager
def _source(path: Path, dataset: Dataset, *, lines: bool) -> Iterator[_Source]:
    with text_file(path, to_utf8=partial(utf8_file, declared="utf-8")) as text, ExitStack() as stack:
        size = _size(text, lines=lines)
        large = Keep(path, size=size).large
        array = stack.enter_context(array_alone(text, dataset)) if large and not lines else None
        yield _Source(text=text, lines=lines, size=size, array=array, streams=large and (lines or array is not None))


def _size(text: Path, *, lines: bool) -> int:
    """About the bytes that its records take in memory."""
    size = text.stat().st_size
    if not lines:
        return size
    with text.open("rb") as file:
        return size + _RECORD * sum(chunk.count(b"\n") for chunk in iter(partial(file.read, CHUNK), b""))


def _records(connection: duckdb.DuckDBPyConnection, source: _Source, dataset: Dataset) -> None:
    """Make the view `records`: number, line, raw text, and `doc`, which is the same, or why it is `bad`."""
    if source.lines:
        with source.text.open("rb") as file:
            records_of_lines(connection, _numbered(file))
    else:
        if source.array is None or not records_of_array(connection, source.array):
            records_of_document(connection, source.text, dataset)
        records_of_judged(connection)
    mark_too_deep(connection)


def mark_too_deep(connection: duckdb.DuckDBPyConnection) -> None:
    """Make those of the view `records` bad whose nesting DuckDB would not survive."""
    suspects = connection.execute(
        f"SELECT record, raw FROM records WHERE doc IS NOT NULL AND length(raw) > {2 * DEEPEST} "
        f"AND length(raw) - length(replace(replace(raw, '[', ''), '{{', '')) > {DEEPEST}"
    ).fetchall()
    for record, raw in suspects:
        if depth(raw) > DEEPEST:
            connection.execute(
                "UPDATE judged SET bad = ? WHERE record = ?", [f"nested deeper than {DEEPEST} levels", record]
            )


def _numbered(file: IO[bytes]) -> Iterator[pa.Table]:
    """The lines that are not blank, some at a time, with their number and that of their record."""
    line, record = 0, 0
    yield pa.schema([("line", pa.int64()), ("raw", pa.large_string()), ("record", pa.int64())]).empty_table()
    while chunk := file.read(CHUNK) + file.readline():
        texts = trimmed_lines(pa.array([chunk.removesuffix(b"\n")], pa.large_binary()).cast(pa.large_string()))
        filled = pc.not_equal(texts, "")
        raw = texts.filter(filled)
        numbers = up_from(line, len(texts)).filter(filled)
        yield pa.table([numbers, raw, up_from(record, len(raw))], names=["line", "raw", "record"])
        line, record = line + len(texts), record + len(raw)


def up_from(before: int, count: int) -> pa.Array:
    """So many numbers, one after the other."""
    return pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), count), start=before)


def trimmed_lines(contents: pa.Array) -> pa.Array:
    """The lines of all contents, one after another, without white space at their ends."""
    return pc.utf8_rtrim(pc.list_flatten(pc.split_pattern(contents, "\n")), " \t\r")


def records_of_lines(connection: duckdb.DuckDBPyConnection, lines: Iterable[pa.Table]) -> None:
    """Make the view `records` of lines with their number and that of their record, and whatever else they have."""
    into = "CREATE TEMP TABLE judged AS"
    for some in lines:
        connection.register("lines", some)
        connection.execute(
            f"{into} SELECT *, CASE WHEN NOT json_valid(raw) THEN 'not JSON' "
            "WHEN NOT starts_with(ltrim(raw, chr(32) || chr(9) || chr(13)), '{') THEN 'not a JSON object' END AS bad "
            "FROM lines"
        )
        connection.unregister("lines")
        into = "INSERT INTO judged"
    records_of_judged(connection)


def records_of_judged(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the view `records` of the table `judged`."""
    connection.execute("CREATE TEMP VIEW records AS SELECT *, CASE WHEN bad IS NULL THEN raw END AS doc FROM judged")


def _leaves(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> list[tuple[Keys, str]]:
    """The paths of the records' values with their types; objects are walked unless they are kept, arrays are not."""
    # It puts all that it is given into one text: one record of each structure says as much.
    row = connection.execute(
        "SELECT json_group_structure(CAST(doc AS JSON)) FROM (SELECT doc FROM records WHERE record IN "
        "(SELECT min(record) FROM records WHERE doc IS NOT NULL GROUP BY json_structure(doc)) ORDER BY record)"
    ).fetchone()
    return leaves_of(row[0] if row else None, dataset)


def leaves_of(found: str | None, dataset: Dataset) -> list[tuple[Keys, str]]:
    """The paths in what `json_group_structure` found. Raises Unreadable when they are too many."""
    structure = json.loads(found) if found else None
    if not isinstance(structure, dict):
        return []
    leaves = list(_walk((), structure, DEEPEST if dataset.nested == "flatten" else 1))
    if len(leaves) > MOST_COLUMNS:
        leaves = list(_walk((), structure, 1))
    if len(leaves) > MOST_COLUMNS:
        raise Unreadable(f"its records have {len(leaves)} different keys, more than {MOST_COLUMNS}")
    return leaves


def _walk(keys: Keys, found: dict[str, object], levels: int) -> list[tuple[Keys, str]]:
    leaves: list[tuple[Keys, str]] = []
    for key, inner in found.items():
        here = (*keys, key)
        if isinstance(inner, dict) and inner and levels > 1:
            leaves += _walk(here, inner, levels - 1)
        else:
            leaves.append((here, _type(inner)))
    return leaves


def _type(found: object) -> str:
    if not isinstance(found, str):
        return "JSON"
    # What was null everywhere takes any text later.
    return {"UBIGINT": "BIGINT", "HUGEINT": "BIGINT", "NULL": "VARCHAR"}.get(found, found)


def strange_in(leaves: Sequence[tuple[Keys, str]], schema: Schema) -> Strange:
    """What the schema's columns do not say of these paths."""
    known = {json_keys(column.original) for column in schema.columns}
    extra = [keys for keys, _ in leaves if not _covered(keys, known)]
    if not extra:
        return Strange()
    # The name itself goes before another spelling of it.
    there = {keys[:end] for keys, _ in leaves for end in range(1, len(keys) + 1)}
    wanted: dict[tuple[str, ...], list[Keys]] = defaultdict(list)
    for column in schema.columns:
        if (keys := json_keys(column.original)) not in there:
            wanted[spelling(column.original)].append(keys)
    spelled: dict[Keys, Keys] = {}
    for keys in extra if wanted else ():
        inside = [keys[:end] for end in range(1, len(keys) + 1)]
        if any(part in spelled.values() for part in inside):
            continue
        for part in inside:
            if meant := wanted[spelling(json_path(part))]:
                spelled[meant.pop(0)] = part
                break
    taken = set(spelled.values())
    return Strange(
        extra=tuple(keys for keys in extra if not _covered(keys, taken)), spelled=tuple(sorted(spelled.items()))
    )


def _covered(keys: Keys, known: Collection[Keys]) -> bool:
    """A value is taken when it has a column, or lies inside one that holds a whole tree."""
    return any(keys[:end] in known for end in range(1, len(keys) + 1))


def _too_long(connection: duckdb.DuckDBPyConnection, columns: Sequence[Column]) -> list[Column]:
    """Those with whole numbers that their type would not hold."""
    found: list[Column] = []
    for kind in ("BIGINT", "DOUBLE"):
        numbers = [column for column in columns if column.type == kind]
        if not numbers:
            continue
        # One question for all columns of a type, of the few records that may have such a number.
        fits = Value(column=numbers[0], expression="text").cast({})
        texts = _extract("json_extract_string", [json_keys(column.original) for column in numbers])
        places = connection.execute(
            "SELECT DISTINCT place FROM (SELECT unnest(texts) AS text, generate_subscripts(texts, 1) AS place FROM "
            f"(SELECT {texts} AS texts FROM records WHERE doc IS NOT NULL AND "
            f"regexp_matches(raw, '[0-9]{{{_LONG}}}'))) "
            f"WHERE strlen(text) >= {_LONG} AND regexp_full_match(text, {literal(WHOLE)}) AND {fits} IS NULL"
        ).fetchall()
        found += [numbers[place - 1] for (place,) in places]
    return found


def _some_twice(connection: duckdb.DuckDBPyConnection, records: str, keys_of: str) -> bool:
    """Whether an object has two values with the same key, of which but the first would be found."""
    # Records have few lists of keys, and to look for equal ones in each takes longer than all the rest.
    found = connection.execute(
        f"SELECT 1 FROM (SELECT DISTINCT {keys_of} AS keys FROM {records}) "
        "WHERE len(list_filter(keys, k -> list_unique(k) < len(k))) > 0 LIMIT 1"
    )
    return found.fetchone() is not None


def _extract(function: str, paths: Sequence[Keys]) -> str:
    if not paths:
        return "CAST([] AS VARCHAR[])"
    return f"{function}(doc, [{', '.join(literal(json_pointer(keys)) for keys in paths)}])"


def _null_out(tree: str) -> str:
    return f"CASE WHEN json_type({tree}) <> 'NULL' THEN {tree} END"


def _rescued(before: int, extra: Sequence[Keys]) -> str:
    if not extra:
        return "CAST(NULL AS VARCHAR)"
    places = [f"trees[{index}]" for index in range(before + 1, before + len(extra) + 1)]
    pairs = ", ".join(f"{literal(json_path(keys))}, {place}" for keys, place in zip(extra, places, strict=True))
    some = " OR ".join(f"json_type({place}) <> 'NULL'" for place in places)
    # The merge with an empty object drops the nulls.
    return f"CASE WHEN {some} THEN CAST(json_merge_patch('{{}}', json_object({pairs})) AS VARCHAR) END"
