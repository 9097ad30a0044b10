"""The bytes of one object → Arrow rows and rejected rows."""

from __future__ import annotations

from pathlib import Path

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats import csv, delivery, json, parquet
from penstock.formats.reports import merge_reports, report
from penstock.formats.result import ReadResult, verdict
from penstock.model import Schema

__all__ = ["ReadResult", "detect", "infer", "merge_reports", "read", "report", "verdict"]

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".geojson": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}


def detect(key: str, dataset: Dataset) -> str:
    """The format of an object: the dataset's, or by the key's suffix when that is `auto`. Raises Unreadable."""
    if dataset.format != "auto":
        return dataset.format
    name = key.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise Unreadable(f"the format is not known by the key's suffix; known are {' '.join(_SUFFIXES)}, each also .gz")


def infer(path: Path, key: str, dataset: Dataset) -> Schema:
    """The schema of a dataset's first object, from all of its bytes; hints override what was found.

    No columns mean that the object has no records: do not remember such a schema. Raises Unreadable.
    """
    match detect(key, dataset):
        case "csv":
            return csv.infer(path, dataset)
        case "tsv":
            return csv.infer(path, dataset, delim="\t")
        case "parquet":
            return parquet.infer(path, dataset)
        case "delivery":
            return delivery.infer(dataset)
        case kind:
            return json.infer(path, dataset, lines=kind == "ndjson")


def read(path: Path, key: str, dataset: Dataset, schema: Schema) -> ReadResult:
    """One object's rows by a remembered schema. Raises Unreadable, and DeclarationError for faulty expressions."""
    match detect(key, dataset):
        case "csv":
            return csv.read(path, dataset, schema)
        case "tsv":
            return csv.read(path, dataset, schema, delim="\t")
        case "parquet":
            return parquet.read(path, dataset, schema)
        case "delivery":
            return delivery.read(path, dataset, schema)
        case kind:
            return json.read(path, dataset, schema, lines=kind == "ndjson")
