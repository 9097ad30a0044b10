"""Schema memory: what was inferred once and is used for every later object, version by version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select

from penstock.ledger.database import Database
from penstock.ledger.tables import schemas
from penstock.model import Column, Schema


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """One version of a dataset's schema for objects of the format `form`: since when, and what it was made for."""

    form: str
    schema: Schema
    cause: str
    at: datetime


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

    def versions(self, dataset: str) -> list[Remembered]:
        """Every version, by format and then in the order in which they were made."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(schemas).where(schemas.c.dataset == dataset).order_by(schemas.c.format, schemas.c.version)
            ).all()
        return [
            Remembered(
                form=row.format,
                schema=Schema(
                    version=row.version, columns=tuple(Column(**column) for column in row.columns), dialect=row.dialect
                ),
                cause=row.cause,
                at=row.created_at,
            )
            for row in rows
        ]

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
