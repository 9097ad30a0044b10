"""What every warehouse does. `tests/conformance/test_warehouse.py` is its suite.

Errors: WarehouseLocked (transient: somebody else holds it), LeaseLost (a greater token is there; nothing was written).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from penstock.errors import TableMissing
from penstock.model import ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

OBJECT = "_penstock_object"
ROW = "_penstock_row"
LOADED_AT = "_penstock_loaded_at"
RESCUED = "_penstock_rescued"
MARKERS = "_penstock_objects"
FENCES = "_penstock_fences"
REPLACED = "_penstock_replaced"
REJECTED_SUFFIX = "__rejected"
NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class LoadPart:
    """What one object brings.

    `rows`: the table's columns, `_penstock_row`, `_penstock_rescued`; `rejected`: as `formats.result.REJECTED` has it.
    `replaces`: names (`bucket/key@generation`) of generations whose rows and markers go in the same transaction. The
    warehouse remembers them, so that a late load of one of them does not bring it back. `again`: the object is loaded
    although its marker may be there; what it brought before goes in the same transaction. `only_rejected`: it is
    loaded although its marker is there; of its rows only those come, good or rejected, whose numbers are among its
    rejected ones and not in the table. That the numbers are still those of the same records is for the caller to see.
    """

    ref: ObjectRef
    rows: pa.Table
    rejected: pa.Table
    replaces: tuple[str, ...] = ()
    again: bool = False
    only_rejected: bool = False


@dataclass(frozen=True, kw_only=True)
class Write:
    """How rows come into the table: appended, unless one of the two is said.

    `key`: of the rows with an equal key the one stays that has the greatest `order_by` (NULL is the least), then that
    of the latest arrival, then the last one of an object. `partitions`: of the rows that are equal in these columns
    those of the latest arrival stay. NULL equals NULL. Arrivals are compared by `ObjectRef.arrived_at`, then by `id`.
    """

    key: tuple[str, ...] = ()
    order_by: str | None = None
    partitions: tuple[str, ...] = ()


APPEND = Write()


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """Names of the objects that were loaded now, and of those whose marker was there `already`.

    `superseded` were not loaded because a later generation replaced them, before or in this load.
    """

    loaded: tuple[str, ...]
    already: tuple[str, ...]
    superseded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """A query's answer; `truncated` when there were more than `limit` rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool


def plan_load(
    parts: Sequence[LoadPart], *, there: Collection[str], replaced: Collection[str]
) -> tuple[list[LoadPart], LoadResult]:
    """Which parts to load, and what became of all: `there` have a marker, `replaced` were replaced by earlier loads."""
    names = [part.ref.name for part in parts]
    new = [part for part in parts if part.again or part.only_rejected or part.ref.name not in there]
    gone = {*replaced, *(name for part in new for name in part.replaces)}
    fresh = {part.ref.name: part for part in new if part.ref.name not in gone}
    return list(fresh.values()), LoadResult(
        loaded=tuple(fresh),
        already=tuple(name for name in names if name in there and name not in fresh),
        superseded=tuple(name for name in names if name in gone and name not in there),
    )


def steps(fresh: Sequence[LoadPart], *, there: Collection[str]) -> tuple[list[str], list[str]]:
    """Of what is loaded: the names whose rows go first, and those whose rows stay and get what they lack."""
    mended = [part.ref.name for part in fresh if part.only_rejected and part.ref.name in there]
    return [part.ref.name for part in fresh if part.again and part.ref.name not in mended], mended


def missing_table(name: str, near: str | None = None) -> TableMissing:
    """What a query that names a table which is not there is told; `near`: one that is, and may be meant."""
    meant = f"; did you mean {near}?" if near else "."
    return TableMissing(
        f"there is no table {name}{meant} A dataset's table is made with its first load. "
        "How each stands: penstock status"
    )


class Warehouse(Protocol):
    """Where rows land, exactly once."""

    def fence(self, dataset: str, token: int) -> None:
        """Write the greater token of a new holder. Raises LeaseLost when a greater one is there."""

    def load(
        self,
        dataset: str,
        schema_columns: Sequence[tuple[str, str]],
        parts: Sequence[LoadPart],
        *,
        token: int,
        run: str,
        now: datetime,
        write: Write = APPEND,
        originals: Mapping[str, str] = NO_NAMES,
    ) -> LoadResult:
        """One transaction: all parts that `plan_load` lets pass, or nothing. Raises LeaseLost, nothing written.

        `schema_columns` are (name, DuckDB type) of the table's own columns. The table is made, gets columns it lacks
        (NULL in older rows), and columns become wider when the schema says so (`widening`). `originals` has the names
        of columns in the data: where one differs it is kept as the comment of a column that is made. `write`: rows that
        lose against others go in the same transaction, also out of what was there. Raises DeclarationError when the
        table has not the columns that `write` names, DoesNotFit when one of them would have to become text.
        """

    def markers(self, names: Sequence[str]) -> set[str]:
        """Those of `names` whose objects were loaded."""

    def loaded(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Of each of `names` that was loaded, its rows and its rejected rows, as its marker has them.

        Rows that others have taken the place of since are counted too.
        """

    def gone(self, names: Sequence[str]) -> dict[str, int]:
        """Of each of `names` that was loaded, how many of its marker's rows others have taken the place of."""

    def replaced(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that a newer generation replaced."""

    def rejected(self, dataset: str, name: str) -> dict[int, tuple[int | None, str | None]]:
        """Of the rejected rows that an object has, line and raw text by their numbers."""

    def columns(self, dataset: str) -> dict[str, str]:
        """The types of the columns of the dataset's table, in DuckDB's words and by their names in lower case."""

    def damaged(self, dataset: str) -> list[str]:
        """Names of the objects whose rows or rejected rows are not as many as their marker says; sorted.

        Of the marker's rows those are not expected that others have taken the place of (its `gone`).
        Cheap while the totals agree. Rows without any marker are named too.
        """

    def query(self, sql: str, *, limit: int, seconds: float = 30) -> QueryResult:
        """Read only, and nothing outside the warehouse. Raises QueryRefused, its TableMissing, or QueryTooLong."""

    def count(self, dataset: str) -> int:
        """Rows in the dataset's table; 0 when there is none yet."""
