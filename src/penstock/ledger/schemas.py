"""Schema memory: what was inferred once and is used for every later object, version by version."""

from __future__ import annotations

from sqlalchemy import insert, select

from penstock.ledger.database import Database
from penstock.ledger.tables import schemas
from penstock.model import Column, Schema


class Schemas:
    """The remembered schemas of every dataset."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, dataset: str, form: str) -> Schema | None:
        """The newest version for objects of the format `form`, or None before the first one was read."""
        with self._database.read() as connection:
            row = connection.execute(
                select(schemas)
                .where(schemas.c.dataset == dataset, schemas.c.format == form)
                .order_by(schemas.c.version.desc())
                .limit(1)
            ).first()
        if row is None:
            return None
        return Schema(
            version=row.version, columns=tuple(Column(**column) for column in row.columns), dialect=row.dialect
        )

    def remember(self, dataset: str, form: str, schema: Schema, *, cause: str) -> Schema:
        """Keep `schema` as the version after the newest, and return it so numbered."""
        latest = self.latest(dataset, form)
        numbered = Schema(version=latest.version + 1 if latest else 1, columns=schema.columns, dialect=schema.dialect)
        with self._database.write() as connection:
            connection.execute(
                insert(schemas).values(
                    dataset=dataset,
                    format=form,
                    version=numbered.version,
                    columns=[
                        {"name": column.name, "original": column.original, "type": column.type}
                        for column in schema.columns
                    ],
                    dialect=schema.dialect,
                    cause=cause,
                    created_at=self._database.clock(),
                )
            )
        return numbered
