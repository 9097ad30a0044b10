"""The columns of a dataset's tables in PostgreSQL: made, added and widened, in the session's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.errors import DeclarationError
from penstock.warehouse.base import LOADED_AT, OBJECT, REJECTED_SUFFIX, RESCUED, ROW
from penstock.warehouse.postgres_session import Session
from penstock.warehouse.postgres_types import as_text, column_name, column_type, column_widening, quoted
from penstock.warehouse.widening import TEXT

# What a role or database may have set otherwise, and by which a value's text would be another or lose digits.
_WORDS = (
    "SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex'; "
    "SET LOCAL extra_float_digits = 1"
)


def prepare(
    session: Session, dataset: str, schema_columns: Sequence[tuple[str, str]], originals: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Make the dataset's tables what the schema needs, and return the table's columns, as `Session.columns` has them.

    Raises DeclarationError for a foreign table.
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
            changed |= _widen(session, table, quoted(known[0]), known[1], kind)
    return session.columns(dataset)[dataset] if changed else there


def _widen(session: Session, table: str, column: str, there: str, wanted: str) -> bool:
    found = column_widening(there, wanted)
    if found is None:
        return False
    kind = found.kind
    if found.within is not None and session.ask(
        f"SELECT 1 FROM {table} WHERE {column} NOT BETWEEN -{found.within} AND {found.within} LIMIT 1"
    ):
        kind = TEXT
    value = as_text(column, there) if kind == TEXT else f"{column}::{column_type(kind)}"
    session.do(f"{_WORDS}; ALTER TABLE {table} ALTER COLUMN {column} TYPE {column_type(kind)} USING {value}")
    return True


def _comment(session: Session, table: str, names: Sequence[str], originals: Mapping[str, str]) -> None:
    for name in names:
        original = originals.get(name, name).replace("\0", "\ufffd")
        if original != name:
            session.do(f"COMMENT ON COLUMN {table}.{quoted(column_name(name))} IS {session.literal(original)}")
