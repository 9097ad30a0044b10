"""What a dataset's own function makes of an object's good rows."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.asking import KEY, key_check
from penstock.formats.engine import cursor
from penstock.formats.result import REJECTED, RESCUED, ROW, ReadResult
from penstock.machine_faults import first_line, machine_fault, raise_machine_fault
from penstock.model import NAME
from penstock.quoting import quoted

# As much of an exception's message as a reason needs.
_MESSAGE = 300
# Any other OSError, a file of the function's own that is not there, is the function's.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

NO_ROWS = pa.table({ROW: pa.array([], pa.int64()), RESCUED: pa.array([], pa.string())})


def transformed(result: ReadResult, dataset: Dataset) -> ReadResult:
    """The rows that `dataset.transform` returns, with what was rescued of the records they came from.

    It is not asked when there are no good rows. Rows of a merge without a key are put aside. Raises Unreadable.
    """
    if dataset.transform is None:
        return result
    if not result.rows.num_rows:
        return replace(result, rows=NO_ROWS, columns=())
    made = _called(dataset.transform, result.rows.drop_columns([RESCUED]))
    rows, columns = _typed(_as_told(made, result), dataset)
    return _without_key(replace(result, rows=_rescued_again(rows, result), columns=columns), dataset)


def _called(function: Callable[[pa.Table], object], rows: pa.Table) -> object:
    """What the function returns. Raises Unreadable for whatever it raises, `sys.exit()` too, but for a full machine."""
    made: list[object] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            made.append(function(rows))
        except BaseException as error:  # judged below, in the thread that asked
            raised.append(error)

    if threading.current_thread() is threading.main_thread():
        # Signals arrive there: what they raise must not be taken for the function's.
        thread = threading.Thread(target=copy_context().run, args=(call,), name="transform", daemon=True)
        thread.start()
        thread.join()
    else:
        call()
    for error in raised:
        fault = machine_fault(error)
        if isinstance(fault, MemoryError) or (fault is not None and fault.errno in _FULL):
            raise fault from (error if fault is not error else None)
        raise Unreadable(f"transform: {type(error).__name__}: {error}"[:_MESSAGE]) from None
    return made[0]


def _as_told(made: object, result: ReadResult) -> pa.Table:
    if not isinstance(made, pa.Table):
        kind = f"{type(made).__module__}.{type(made).__qualname__}" if made is not None else "nothing"
        raise Unreadable(f"transform: it must return a pyarrow.Table, and returned {kind}")
    if ROW not in made.column_names:
        raise Unreadable(f"transform: the table it returned has no {ROW}, which says which record a row came from")
    names = [name for name in made.column_names if name not in (ROW, RESCUED)]
    if len(set(made.column_names)) < made.num_columns:
        raise Unreadable("transform: the table it returned has two columns of one name")
    if not names:
        raise Unreadable("transform: the table it returned has no columns of its own")
    for name in names:
        if name not in result.rows.column_names and not NAME.match(name):
            raise Unreadable(f"transform: column {name!r} of the table it returned: use a-z, 0-9 and _")
    return made.select([*names, ROW])


def _typed(rows: pa.Table, dataset: Dataset) -> tuple[pa.Table, tuple[tuple[str, str], ...]]:
    """The rows, and their columns with types; a column of nothing has none unless it is hinted."""
    try:
        numbers = rows.column(ROW).cast(pa.int64())
        for field in rows.schema:
            if (kind := _plain(field.type)) != field.type:
                rows = rows.set_column(rows.schema.get_field_index(field.name), field.name, rows[field.name].cast(kind))
    except pa.ArrowException as error:
        raise Unreadable(f"transform: {type(error).__name__}: {error}"[:_MESSAGE]) from None
    rows = rows.set_column(rows.schema.get_field_index(ROW), ROW, numbers)
    with cursor() as connection:
        try:
            connection.register("made", rows)
            if hinted := [name for name in _untyped(rows) if name in dataset.columns]:
                casts = ", ".join(f"CAST(NULL AS {dataset.columns[name]}) AS {quoted(name)}" for name in hinted)
                typed = connection.sql(f"SELECT {casts} FROM made").to_arrow_table()
                for name in hinted:
                    rows = rows.set_column(rows.schema.get_field_index(name), name, typed.column(name))
                connection.register("made", rows)
            told = connection.execute("DESCRIBE SELECT * FROM made").fetchall()
        except duckdb.Error as error:
            raise_machine_fault(error)
            raise Unreadable(f"transform: the table it returned cannot be loaded: {first_line(error)}") from None
    untyped = _untyped(rows)
    columns = tuple((name, kind) for name, kind, *_ in told if name != ROW and name not in untyped)
    if rows.num_rows and not columns:
        raise Unreadable("transform: the table it returned has no value in any column")
    return rows, columns if rows.num_rows else ()


def _untyped(rows: pa.Table) -> list[str]:
    return [field.name for field in rows.schema if pa.types.is_null(field.type)]


def _plain(kind: pa.DataType) -> pa.DataType:
    """The widest type of its sort, so that the next object's is no other."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_uint64(kind):
        return pa.decimal128(20, 0)
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        return pa.timestamp("us", kind.tz)
    return pa.float64() if pa.types.is_floating(kind) else kind


def _rescued_again(rows: pa.Table, result: ReadResult) -> pa.Table:
    places = pc.index_in(rows.column(ROW), value_set=result.rows.column(ROW).combine_chunks())
    if places.null_count:
        raise Unreadable(f"transform: the table it returned has a {ROW} that no row had which it was given")
    return rows.append_column(RESCUED, result.rows.column(RESCUED).take(places))


def _without_key(result: ReadResult, dataset: Dataset) -> ReadResult:
    if not dataset.key:
        return result
    good = pc.is_valid(result.rows.column(ROW))
    for name in dataset.key:
        if name not in result.rows.column_names:
            raise Unreadable(f"transform: the table it returned has no {name!r}, which is of the key")
        good = pc.and_(good, pc.is_valid(result.rows.column(name)))
    if pc.all(good, min_count=0).as_py():
        return result
    numbers = pc.unique(result.rows.column(ROW).filter(pc.invert(good))).to_pylist()
    blame = key_check(dataset).column
    bad = pa.Table.from_pylist(
        [{ROW: number, "reason": f"check {KEY}", "column": blame, "check": KEY} for number in numbers], schema=REJECTED
    )
    rejected = pa.concat_tables([result.rejected, bad]).sort_by(ROW)
    return replace(result, rows=result.rows.filter(good), columns=result.columns, rejected=rejected)
