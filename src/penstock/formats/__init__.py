"""The bytes of one object → Arrow rows and rejected rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import arrow, csv, csv_many, delivery, excel, json, json_many, log, parquet
from penstock.formats.asking import stands_alone
from penstock.formats.engine import BY_THE_DATA
from penstock.formats.packed import SUFFIXES, bare_name
from penstock.formats.reports import merge_reports, report
from penstock.formats.result import ReadResult, verdict
from penstock.model import Schema

__all__ = [
    "CLOUDEVENT",
    "SAY_THEIR_COLUMNS",
    "ReadResult",
    "detect",
    "infer",
    "merge_reports",
    "read",
    "read_together",
    "report",
    "size_unpacked",
    "verdict",
]

# What the name of one event in CloudEvents' JSON format ends with: its attributes have columns from the first on.
CLOUDEVENT = ".cloudevent.json"

# Their columns are declared with them: others beside them in an object are none.
SAY_THEIR_COLUMNS = frozenset({"log", "delivery"})

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".geojson": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}

_INFER: dict[str, Callable[[Path, Dataset], Schema]] = {
    "csv": csv.infer,
    "tsv": partial(csv.infer, delim="\t"),
    "parquet": parquet.infer,
    "arrow": arrow.infer,
    "excel": excel.infer,
    "log": log.infer,
    "delivery": delivery.infer,
}

_READ: dict[str, Callable[..., ReadResult]] = {
    "csv": csv.read,
    "tsv": partial(csv.read, delim="\t"),
    "json": partial(json.read, lines=False),
    "ndjson": partial(json.read, lines=True),
    "parquet": parquet.read,
    "arrow": arrow.read,
    "excel": excel.read,
    "log": log.read,
    "delivery": delivery.read,
}

_READ_MANY: dict[str, Callable[..., dict[int, ReadResult]]] = {
    "csv": csv_many.read_many,
    "tsv": partial(csv_many.read_many, delim="\t"),
    "json": partial(json_many.read_many, lines=False),
    "ndjson": partial(json_many.read_many, lines=True),
    "parquet": parquet.read_many,
    "delivery": delivery.read_many,
}


def detect(key: str, dataset: Dataset) -> str:
    """The format of an object: the dataset's, or by the key's suffix when that is `auto`. Raises Unreadable."""
    if dataset.format != "auto":
        return dataset.format
    name = bare_name(key.rsplit("/", 1)[-1])
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise Unreadable(
        f"the format is not known by the key's suffix; known are {' '.join(_SUFFIXES)}, each also {' '.join(SUFFIXES)}"
    )


def infer(path: Path, key: str, dataset: Dataset) -> Schema:
    """The schema of a dataset's first object, from all of its bytes; hints override what was found.

    No columns mean that the object has no records: do not remember such a schema. Raises Unreadable.
    """
    kind = detect(key, dataset)
    if kind in _INFER:
        return _INFER[kind](path, dataset)
    always = json.CLOUDEVENT_ATTRIBUTES if key.endswith(CLOUDEVENT) and not dataset.records else {}
    return json.infer(path, dataset, lines=kind == "ndjson", always=always)


def read(path: Path, key: str, dataset: Dataset, schema: Schema, *, large: bool = False) -> ReadResult:
    """One object's rows by a remembered schema; on disk if they are many, or `large`.

    Raises Unreadable, and DeclarationError for faulty expressions.
    """
    return _READ[detect(key, dataset)](path, dataset, schema, large=large)


def size_unpacked(path: Path, form: str) -> int:
    """The bytes that a plain file's values take, where its own are packed."""
    return parquet.size_unpacked(path) if form == "parquet" else path.stat().st_size


def read_together(
    paths: Sequence[Path],
    form: str,
    dataset: Dataset,
    schema: Schema,
    *,
    progress: Callable[[], None] = lambda: None,
    large: bool = False,
) -> dict[int, ReadResult]:
    """Small objects of one format by one read: by index, exactly what `read` gives for each of them alone.

    Those that are missing must be read alone: to be sure of them, or because that says what is wrong with them. All
    contents are in memory at once; their rows are on disk if `large`. `progress` is called before each query.
    """
    if len(paths) < 2 or form not in _READ_MANY or stands_alone(dataset):
        return {}
    try:
        return _READ_MANY[form](paths, dataset, schema, progress=progress, large=large)
    except DeclarationError:
        return {}  # the first that is read alone says so
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (Unreadable, pa.ArrowException, *BY_THE_DATA, ValueError, OverflowError, RecursionError):
        # One of them makes the others unreadable: find it by halves.
        half = len(paths) // 2
        first = read_together(paths[:half], form, dataset, schema, progress=progress, large=large)
        second = read_together(paths[half:], form, dataset, schema, progress=progress, large=large)
        return first | {half + index: result for index, result in second.items()}
