"""The Prefect server that `up` starts: Prefect's own app, with its SQLite mended and set for many small writers.

After a 'database is locked', SQLAlchemy's aiosqlite adapter leaves its cursor open, and Python frees it wherever the
error is dropped: on the event loop's thread. That blocks on the connection's mutex while another thread waits for the
lock with that connection, and the lock's owner needs the event loop to go on. All of the server stands still until the
wait ends, 60 s with Prefect (seen on Prefect 3.8.8, SQLAlchemy 2.0.58, Python 3.11; a debugger shows the main thread
in `cursor_dealloc`). So the cursor is closed where it belongs, and the wait is shorter.

Prefect's transactions begin DEFERRED: one that has read and then writes, while another has written, fails at once with
'database is locked', however long it would have waited. The server answers 503, and its own client, by which an
automation makes a run, comes again 2 s later. So they begin IMMEDIATE.

Its many small transactions are not synced one by one either. A power cut may take the last of them, which costs time
only: Prefect's database holds no truth of ours.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.pool import ConnectionPoolEntry, Pool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

BUSY_MILLISECONDS = 5000
_DONE = "penstock_tuned"


def create_app() -> Any:
    """The ASGI app, for uvicorn's `--factory`."""
    from prefect.server.api.server import create_app as prefects_own

    event.listen(Pool, "checkout", _tune)
    close_cursors_after_errors()
    begin_immediate()
    return prefects_own(final=True)


def begin_immediate() -> None:
    """Have every transaction that may write take the write lock when it begins, and so wait for it."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def immediate(self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False) -> Any:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = immediate  # type: ignore[method-assign]


def close_cursors_after_errors() -> None:
    """Have the adapter close the cursor of a statement that failed, on the connection's own thread."""
    raise_mapped = AsyncAdapt_aiosqlite_connection._handle_exception

    def close_then_raise(self: AsyncAdapt_aiosqlite_connection, error: Exception) -> NoReturn:
        # The adapter's `execute` keeps the driver's cursor in a local variable only.
        cursor = sys._getframe(1).f_locals.get("_cursor")
        if cursor is not None:
            self.await_(cursor.close())
        raise_mapped(self, error)

    AsyncAdapt_aiosqlite_connection._handle_exception = close_then_raise  # type: ignore[method-assign]


def _tune(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    # At checkout, because Prefect's own listener sets the 60 s after any that could be put before it.
    if record.info.get(_DONE):
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
    record.info[_DONE] = True
