"""What an error of PostgreSQL means for a load: wait, see to the tables, or blame the object. Pure."""

from __future__ import annotations

import psycopg

from penstock.errors import DeclarationError, DoesNotFit, PenstockError, WarehouseUnavailable

# By class, the first two characters of the SQLSTATE, or by the whole: connection, a server that only reads or ended an
# idle transaction, wrong role, no such database, serialization and deadlock, disk and memory and connections, an object
# in use, an operator's intervention, the system below, damaged data or index.
_SERVER = ("08", "25", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX001", "XX002")
# What is not there, not allowed or not supported; what depends on a column; no such schema.
_TABLES = ("42", "0A", "2B", "3F")


def meaning(error: psycopg.Error, *, dataset: str, broken: bool) -> PenstockError:
    """The error to raise instead. `broken`: the connection was gone when it came; `dataset` may be ''.

    What is neither the server's fault nor that of its tables is the data's: values (22), constraints (23), rows too
    wide or too many columns (54), and whatever is not known here.
    """
    state = error.sqlstate
    what = error.diag.message_primary or " ".join(str(error).split())
    if broken or (state is None and not isinstance(error, psycopg.DataError | psycopg.IntegrityError)):
        return WarehouseUnavailable(f"the warehouse does not do it: {what}")
    if state is not None and state.startswith(_SERVER):
        return WarehouseUnavailable(f"the warehouse does not do it: {what} ({state})")
    whose = f"dataset {dataset}: " if dataset else ""
    if state is not None and state.startswith(_TABLES):
        named = f"; {error.diag.message_detail}" if error.diag.message_detail else ""
        return DeclarationError(
            f"{whose}PostgreSQL does not let its tables be used as penstock needs them: {what}{named} ({state}); see "
            "what was changed or made around them"
        )
    # Detail and context would quote the row.
    return DoesNotFit(f"{whose}PostgreSQL does not take the rows: {what}" + (f" ({state})" if state else ""))
