"""Merging in DuckDB: the rows that lose go, and their objects' markers say so. In a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from penstock.errors import DeclarationError
from penstock.quoting import quoted
from penstock.warehouse.base import APPEND, MARKERS, OBJECT, ROW, LoadPart, Write
from penstock.warehouse.duckdb_tables import NAMES, registered
from penstock.warehouse.merging import ADDRESS, losers, merged_columns


def take_out_losers(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    write: Write,
    parts: Sequence[LoadPart],
    columns: Collection[str],
) -> None:
    """Take out what loses against others now that the parts are in the table. Raises DeclarationError."""
    names = [part.ref.name for part in parts if part.rows.num_rows]
    if not names or write == APPEND:
        return
    same, order = merged_columns(dataset, write, columns)
    table, keys = quoted(dataset), [quoted(name) for name in same]
    needed = ", ".join(dict.fromkeys(f"t.{quoted(name)}" for name in [*same, *([order] if order else [])]))
    # A column of that name hides the rows' own ids. Object and number tell rows apart as well, unless a transform made
    # several of one record.
    hidden = any(name.lower() == "rowid" for name in columns)
    address = ROW if hidden else "rowid"
    candidates = (
        f"SELECT t.{address} AS {ADDRESS}, t.{OBJECT}, t.{ROW}, {needed} FROM {table} t "
        f"JOIN (SELECT DISTINCT {', '.join(keys)} FROM {table} WHERE {OBJECT} IN {NAMES}) k "
        f"ON {' AND '.join(f't.{key} IS NOT DISTINCT FROM k.{key}' for key in keys)}"
    )
    sql = losers(
        write,
        keys,
        f"c.{quoted(order)}" if order else None,
        markers=MARKERS,
        candidates=candidates,
        name=f"c.{OBJECT}",
    )
    with registered(connection, names):
        lost = connection.execute(sql).to_arrow_table()
    if not lost.num_rows:
        return
    connection.register("lost", lost)
    them = f"({OBJECT}, {ROW}) IN (SELECT object, {ADDRESS}" if hidden else f"rowid IN (SELECT {ADDRESS}"
    taken = connection.execute(f"DELETE FROM {table} WHERE {them} FROM lost)").fetchone()
    if taken is None or taken[0] != lost.num_rows:
        raise DeclarationError(
            f"dataset {dataset}: DuckDB cannot tell rows of its table apart, since a column is called rowid and "
            f"several rows have the same {ROW}; call the column otherwise"
        )
    connection.execute(
        f"UPDATE {MARKERS} SET gone = gone + n FROM (SELECT object AS loser, count(*) AS n FROM lost GROUP BY 1) l "
        f"WHERE {MARKERS}.object = l.loser"
    )
    connection.unregister("lost")
