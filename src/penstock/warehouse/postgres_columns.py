"""The columns of a dataset's tables in PostgreSQL: made, added and widened, in the session's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.errors import DeclarationError
from penstock.quoting import quoted
from penstock.warehouse.base import LOADED_AT, OBJECT, REJECTED_SUFFIX, RESCUED, ROW, LoadPart, Write
from penstock.warehouse.merging import refuse_texts
from penstock.warehouse.postgres_session import Session
from penstock.warehouse.postgres_types import as_kept, as_text, column_name, column_type, like
from penstock.warehouse.rows import beyond
from penstock.widening import TEXT, bound, widening

# What a role or database may have set otherwise, and by which a value's text would be another or lose digits.
_WORDS = (
    "SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex'; "
    "SET LOCAL extra_float_digits = 1"
)


def prepare(
    session: Session,
    dataset: str,
    schema_columns: Sequence[tuple[str, str]],
    originals: Mapping[str, str],
    parts: Sequence[LoadPart],
    write: Write,
) -> dict[str, tuple[str, str]]:
    """Make the dataset's tables what the parts need, and return the table's columns, as `Session.columns` has them.

    Raises DeclarationError for a foreign table, DoesNotFit where a column by which rows are merged would be compared
    otherwise.
    """
    table, rejected = session.table(dataset), session.table(dataset + REJECTED_SUFFIX)
    both = session.columns(dataset, dataset + REJECTED_SUFFIX)
    there, there_rejected = both[dataset], both[dataset + REJECTED_SUFFIX]
    if there and OBJECT not in there:
        raise DeclarationError(
            f"dataset {dataset}: PostgreSQL has a table of that name which is not penstock's; name the dataset "
            "otherwise, or give the warehouse a schema of its own (search_path)"
        )
    changed = not there
    if not there:
        own = "".join(f"{quoted(column_name(name))} {column_type(kind)}, " for name, kind in schema_columns)
        session.do(f"CREATE TABLE {table} ({own}{OBJECT} text, {ROW} bigint, {LOADED_AT} timestamptz, {RESCUED} text)")
        # By object, because a replacement and a check look for them; NULLs and rows stay as they are.
        session.do(f"CREATE INDEX ON {table} ({OBJECT})")
        _comment(session, table, [name for name, _ in schema_columns], originals)
    if not there_rejected:
        session.do(
            f"CREATE TABLE IF NOT EXISTS {rejected} ({OBJECT} text, {ROW} bigint, line bigint, reason text, raw text, "
            f"{LOADED_AT} timestamptz, column_name text, check_name text)"
        )
    elif "check_name" not in there_rejected:
        names = ("column_name", "check_name")
        session.do(f"ALTER TABLE {rejected} " + ", ".join(f"ADD COLUMN IF NOT EXISTS {name} text" for name in names))
    for name, kind in schema_columns if there else ():
        known = there.get(column_name(name).lower())
        if known is None:
            session.do(f"ALTER TABLE {table} ADD COLUMN {quoted(column_name(name))} {column_type(kind)}")
            _comment(session, table, [name], originals)
            changed = True
        else:
            changed |= _widen(session, dataset, name, known, kind, parts, write)
    return session.columns(dataset)[dataset] if changed else there


def _widen(
    session: Session,
    dataset: str,
    name: str,
    known: tuple[str, str],
    wanted: str,
    parts: Sequence[LoadPart],
    write: Write,
) -> bool:
    table, column = session.table(dataset), quoted(known[0])
    there, wanted = like(known[1]), as_kept(wanted)
    found = widening(there, wanted)
    kind = found.kind if found is not None else there
    if (
        found is not None
        and found.within is not None
        and session.ask(f"SELECT 1 FROM {table} WHERE {column} NOT BETWEEN -{found.within} AND {found.within} LIMIT 1")
    ):
        kind = TEXT
    if beyond([part.rows for part in parts], name, bound(kind, wanted)):
        kind = TEXT
    refuse_texts(dataset, write, name, there, wanted, kind)
    if kind == there:
        return False
    value = as_text(column, known[1]) if kind == TEXT else f"{column}::{column_type(kind)}"
    session.do(f"{_WORDS}; ALTER TABLE {table} ALTER COLUMN {column} TYPE {column_type(kind)} USING {value}")
    return True


def _comment(session: Session, table: str, names: Sequence[str], originals: Mapping[str, str]) -> None:
    for name in names:
        original = originals.get(name, name).replace("\0", "\ufffd")
        if original != name:
            session.do(f"COMMENT ON COLUMN {table}.{quoted(column_name(name))} IS {session.literal(original)}")
