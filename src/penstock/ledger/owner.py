"""Whose ledger a PostgreSQL database is: two projects in one would load, send and sweep for each other."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from penstock.errors import SettingsError
from penstock.ledger import tables


def take(connection: Connection, project: str) -> None:
    """Write the project down where nobody is; raises SettingsError where another one is."""
    refuse_another(connection, project)
    if connection.execute(select(tables.owner.c.project)).first() is None:
        connection.execute(insert(tables.owner).values(project=project))


def refuse_another(connection: Connection, project: str) -> None:
    """Raise SettingsError where the ledger is another project's."""
    there = connection.execute(select(tables.owner.c.project)).scalar()
    if there is not None and there != project:
        raise SettingsError(
            f"this ledger is that of the project {there!r}: give {project!r} a database or a schema of its own "
            f"(PENSTOCK_LEDGER_URL), or, if it is the same project by a new name, go on with PENSTOCK_PROJECT={there}"
        )
