"""Who works with the ledger: shared by all who do, exclusive for a migration.

On SQLite it is a flock on `<ledger>.at-work`, which the kernel lets go when the last process that inherited it ends; on
PostgreSQL an advisory lock of every connection. A migration never waits for it: it names who has to be stopped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text

from penstock.errors import LedgerInUse, LedgerUnavailable
from penstock.holders import holders

# The first number is "penstock"'s own among the advisory locks of a database; the second says what is locked.
_OURS = 0x70656E73
WRITE_LOCK = f"{_OURS}, 1"
AT_WORK_LOCK = f"{_OURS}, 2"


def attend(ledger: Path) -> int:
    """Be at work on a SQLite ledger for as long as the returned descriptor is open."""
    descriptor = _open(ledger)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LedgerUnavailable("the ledger is being migrated; try again when that is done") from None
    return descriptor


@contextmanager
def alone_with_file(ledger: Path) -> Iterator[None]:
    """Nobody else is at work on a SQLite ledger meanwhile. Raises LedgerInUse at once when somebody is."""
    descriptor = _open(ledger)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found = holders(os.fstat(descriptor).st_ino)
        os.close(descriptor)
        raise _in_use(found) from None
    try:
        yield
    finally:
        os.close(descriptor)


def be_alone(connection: Connection) -> None:
    """As `alone_with_file`, on PostgreSQL, until the end of the connection's transaction."""
    if connection.execute(text(f"SELECT pg_try_advisory_xact_lock({AT_WORK_LOCK})")).scalar():
        return
    found = connection.execute(
        text(
            "SELECT DISTINCT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            f"WHERE l.locktype = 'advisory' AND l.classid = {_OURS} AND l.objid = 2 AND l.granted "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1"
        )
    ).scalars()
    raise _in_use(list(found))


def _open(ledger: Path) -> int:
    return os.open(ledger.with_name(ledger.name + ".at-work"), os.O_RDWR | os.O_CREAT, 0o600)


def _in_use(by: list[str]) -> LedgerInUse:
    return LedgerInUse(
        f"the ledger needs a migration, and {', '.join(by) or 'another process'} works with it: stop `penstock up` and "
        "every other penstock process of this ledger, then run: penstock migrate"
    )
