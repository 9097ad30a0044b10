"""Merging in PostgreSQL: the rows that lose go, and their objects' markers say so. In the session's transaction.

The fence's row is locked all the while, so that no other load of the dataset can bring rows in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from penstock.quoting import quoted
from penstock.warehouse.base import APPEND, MARKERS, OBJECT, ROW, LoadPart, Write
from penstock.warehouse.merging import ADDRESS, losers, merged_columns
from penstock.warehouse.postgres_session import Session
from penstock.warehouse.postgres_types import column_name

# As DuckDB compares text: by bytes, whatever the database's language.
_BYTEWISE = ' COLLATE "C"'
# Up to so many rows the equal ones are looked up one by one: a table that grew since its statistics were made would be
# read as a whole for a handful. More are left to the planner. Compiling costs more than it brings for either.
_FEW_ROWS = 10_000
_ONE_BY_ONE = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; "
# More columns no index of PostgreSQL has.
_MOST_INDEXED = 32


def take_out_losers(
    session: Session,
    dataset: str,
    write: Write,
    parts: Sequence[LoadPart],
    columns: Mapping[str, tuple[str, str]],
) -> None:
    """Take out what loses against others now that the parts are in the table. Raises DeclarationError."""
    names = [part.ref.name for part in parts if part.rows.num_rows]
    if not names or write == APPEND:
        return
    same, order = merged_columns(dataset, _as_named(write), [name for name, _ in columns.values()])
    keys = [quoted(name) for name in same]
    indexed = _index(session, dataset, keys)
    by = None
    if order is not None:
        by = f"c.{quoted(order)}" + (_BYTEWISE if columns[order.lower()][1] == "text" else "")
    sql = losers(
        write,
        keys,
        by,
        markers=session.table(MARKERS),
        candidates=_candidates(session, session.table(dataset), keys, order, session.literal(names)),
        name=f"c.{OBJECT}{_BYTEWISE}",
    )
    few = indexed and sum(part.rows.num_rows for part in parts) <= _FEW_ROWS
    # An array of addresses, because rows are then fetched by them, however large the table is.
    session.do(
        f"SET LOCAL jit = off; {_ONE_BY_ONE if few else ''}WITH lost AS MATERIALIZED ({sql}), "
        f"taken AS (DELETE FROM {session.table(dataset)} WHERE ctid = ANY (ARRAY(SELECT {ADDRESS} FROM lost))) "
        f"UPDATE {session.table(MARKERS)} m SET gone = gone + n "
        "FROM (SELECT object, count(*) AS n FROM lost GROUP BY 1) l WHERE m.object = l.object"
    )


def _candidates(session: Session, table: str, keys: Sequence[str], order: str | None, names: str) -> str:
    """A SELECT of all rows that are equal in `keys` to one of the objects of `names`.

    `IS NOT DISTINCT FROM` would use no index, so there is one SELECT for each way in which the keys have NULLs.
    """
    arriving = f"FROM {table} WHERE {OBJECT} = ANY ({names})"
    needed = ", ".join(f"t.{name}" for name in dict.fromkeys([*keys, *([quoted(order)] if order else [])]))
    selects = []
    for nulls in session.ask(f"SELECT DISTINCT {', '.join(f'{key} IS NULL' for key in keys)} {arriving}"):
        having = " AND ".join(f"{key} IS {'' if null else 'NOT '}NULL" for key, null in zip(keys, nulls, strict=True))
        equal = " AND ".join(
            f"t.{key} IS NULL" if null else f"t.{key} = k.{key}" for key, null in zip(keys, nulls, strict=True)
        )
        selects.append(
            f"SELECT t.ctid AS {ADDRESS}, t.{OBJECT}, t.{ROW}, {needed} FROM {table} t "
            f"JOIN (SELECT DISTINCT {', '.join(keys)} {arriving} AND {having}) k ON {equal}"
        )
    return " UNION ALL ".join(selects)


def _index(session: Session, dataset: str, keys: Sequence[str]) -> bool:
    """Make the index by which equal rows are found, the first time; False where a row's key is too long for one."""
    mark = hashlib.sha256("\0".join([dataset, *keys]).encode()).hexdigest()[:16]
    if session.has_table(f"_penstock_same_{mark}"):
        return True
    columns = ", ".join(keys[:_MOST_INDEXED])
    return session.fits(f"CREATE INDEX _penstock_same_{mark} ON {session.table(dataset)} ({columns})")


def _as_named(write: Write) -> Write:
    return Write(
        key=tuple(column_name(name) for name in write.key),
        order_by=None if write.order_by is None else column_name(write.order_by),
        partitions=tuple(column_name(name) for name in write.partitions),
    )
