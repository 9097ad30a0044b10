"""The rows that go in: each has an id of its own, so that what came out can be compared with what was put."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

COLUMNS = {"id": "BIGINT", "name": "VARCHAR", "amount": "DOUBLE", "moment": "TIMESTAMP"}
HEADER = ",".join(COLUMNS) + "\n"

# Rows of the same columns, made by DuckDB for files that are too large to be made line by line: about 90 bytes each, of
# which Parquet can hardly compress the half.
_MADE = (
    "SELECT i AS id, md5(i::VARCHAR) || hash(i) AS name, (i % 10000) / 100 AS amount, "
    "TIMESTAMP '2026-01-01' + to_seconds(i % 86400) AS moment FROM range({first}, {last}) t(i)"
)


@dataclass(kw_only=True)
class Ids:
    """Ids that nothing else in a run uses, in ascending order."""

    next: int = 1

    def take(self, count: int) -> range:
        """So many new ones."""
        taken = range(self.next, self.next + count)
        self.next = taken.stop
        return taken


def csv(ids: Sequence[int]) -> bytes:
    """A CSV with a row for each id."""
    lines = (f"{i},n{i % 1000},{(i % 10000) / 100},2026-01-01 {i % 24:02}:{i % 60:02}:00\n" for i in ids)
    return (HEADER + "".join(lines)).encode()


def json_row(number: int, *, size: int = 0) -> bytes:
    """A JSON object with one row, padded to about `size` bytes."""
    text = f'{{"id": {number}, "name": "n{number % 1000}", "amount": {(number % 10000) / 100}, "note": "'
    return (text + "x" * max(0, size - len(text) - 2) + '"}').encode()


def files(ids: Ids, count: int, rows: int, folder: str) -> Iterator[tuple[str, bytes]]:
    """Keys below a folder, with the CSV of each."""
    for number in range(count):
        yield f"{folder}/{number:06}.csv", csv(ids.take(rows))


def write_large(path: Path, ids: Ids, count: int) -> range:
    """A large CSV or Parquet file, by its suffix; returns its ids."""
    taken = ids.take(count)
    form = "FORMAT parquet" if path.suffix == ".parquet" else "FORMAT csv, HEADER"
    with duckdb.connect() as connection:
        made = _MADE.format(first=taken.start, last=taken.stop)
        connection.execute(f"COPY ({made}) TO '{path}' ({form})")
    return taken
