"""How the ledger uses a PostgreSQL connection. Imported only where the ledger is there: the driver is an extra."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.types.string import StrDumperUnknown

from penstock.ledger.at_work import AT_WORK_LOCK

# A server whose machine or network went away without a word is given up after half a minute, not after hours.
CONNECT_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# A writer that was stopped in the middle of a transaction keeps the others for so long at most.
STALLED_SECONDS = 60


class _WithoutNul(StrDumperUnknown):
    """Text, in which U+0000, which PostgreSQL cannot store, becomes U+FFFD: a reason may quote what was in a file."""

    def dump(self, obj: str) -> Any:
        """The text as bytes."""
        return super().dump(obj.replace("\0", "\ufffd"))


def prepare(connection: psycopg.Connection, *, lock_seconds: float) -> None:
    """Set the limits of a new connection, and the name by which `migrate` tells who works."""
    with _closed_on_error(connection):
        connection.adapters.register_dumper(str, _WithoutNul)
        connection.execute(
            "SELECT set_config('lock_timeout', %s, false), set_config('application_name', %s, false), "
            "set_config('idle_in_transaction_session_timeout', %s, false), "
            # A role's default of repeatable read would take its snapshot before it has the write lock.
            "set_config('default_transaction_isolation', 'read committed', false)",
            [
                f"{max(1, int(lock_seconds * 1000))}ms",  # 0 would be for ever
                f"penstock, process {os.getpid()} on {socket.gethostname()}"[:63],
                f"{STALLED_SECONDS}s",
            ],
        )
        connection.commit()


def attend(connection: psycopg.Connection) -> str | None:
    """Be at work for as long as the connection lives; returns the ledger's revision."""
    with _closed_on_error(connection):
        connection.execute(f"SELECT pg_advisory_lock_shared({AT_WORK_LOCK})".encode())
        made = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone() if made and made[0] else None
        connection.commit()
        return found[0] if found else None


@contextmanager
def _closed_on_error(connection: psycopg.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()  # the pool does not have it yet
        raise
