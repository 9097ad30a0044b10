"""Schema memory: what was inferred once and is used for every later object, version by version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select

from penstock import events
from penstock.errors import LeaseLost
from penstock.ledger import outbox
from penstock.ledger.database import Database
from penstock.ledger.tables import leases, schemas
from penstock.model import Column, Lease, Schema

# The version of what a load under way teaches: it counts for nothing until that load is known to have happened.
_PROPOSED = 0


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """One version of a dataset's schema for objects of the format `form`: since when, and what it was made for."""

    form: str
    schema: Schema
    cause: str
    at: datetime


class Schemas:
    """The remembered schemas of every dataset."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def latest(self, dataset: str, form: str) -> Schema | None:
        """The newest version for objects of the format `form`, or None before the first one was read."""
        with self._database.read() as connection:
            return _latest(connection, dataset, form)

    def versions(self, dataset: str) -> list[Remembered]:
        """Every version, by format and then in the order in which they were made."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(schemas)
                .where(schemas.c.dataset == dataset, schemas.c.version != _PROPOSED)
                .order_by(schemas.c.format, schemas.c.version)
            ).all()
        return [Remembered(form=row.format, schema=_schema(row), cause=row.cause, at=row.created_at) for row in rows]

    def remember(self, dataset: str, form: str, schema: Schema, *, cause: str) -> Schema:
        """Keep `schema` as the version after the newest, and return it so numbered; an event says what changed.

        What is as the newest already is no new version.
        """
        with self._database.write() as connection:
            return self._remember(connection, dataset, form, schema, cause)

    def propose(self, lease: Lease, learned: Mapping[str, tuple[Schema, str]], *, proof: Sequence[str]) -> None:
        """Keep what a load is about to teach, by format with its cause, in the place of what was proposed before.

        Any of the objects `proof` in the warehouse will tell that the load happened. Raises LeaseLost.
        """
        with self._database.write() as connection:
            _own(connection, lease)
            connection.execute(delete(schemas).where(_proposed(lease.dataset)))
            for form, (schema, cause) in learned.items():
                connection.execute(
                    insert(schemas).values(
                        dataset=lease.dataset,
                        format=form,
                        version=_PROPOSED,
                        columns=[asdict(column) for column in schema.columns],
                        dialect={"found": schema.dialect, "proof": list(proof)},
                        cause=cause,
                        created_at=self._database.clock(),
                    )
                )

    def proposed(self, dataset: str) -> list[str]:
        """The objects by which to tell whether what is proposed was loaded; none where nothing is proposed."""
        with self._database.read() as connection:
            rows = connection.execute(select(schemas.c.dialect).where(_proposed(dataset))).all()
        return sorted({name for row in rows for name in row.dialect["proof"]})

    def conclude(self, lease: Lease, *, loaded: bool) -> None:
        """Remember what is proposed if it was loaded, and forget it otherwise. Raises LeaseLost."""
        with self._database.write() as connection:
            _own(connection, lease)
            rows = connection.execute(select(schemas).where(_proposed(lease.dataset)).order_by(schemas.c.format)).all()
            connection.execute(delete(schemas).where(_proposed(lease.dataset)))
            for row in rows if loaded else ():
                schema = _schema(row)
                found = replace(schema, dialect=schema.dialect["found"])
                self._remember(connection, lease.dataset, row.format, found, row.cause)

    def _remember(self, connection: Connection, dataset: str, form: str, schema: Schema, cause: str) -> Schema:
        before = _latest(connection, dataset, form)
        if before is not None and before == replace(schema, version=before.version):
            return before
        numbered = replace(schema, version=before.version + 1 if before else 1)
        now = self._database.clock()
        columns = [asdict(column) for column in schema.columns]
        connection.execute(
            insert(schemas).values(
                dataset=dataset,
                format=form,
                version=numbered.version,
                columns=columns,
                dialect=schema.dialect,
                cause=cause,
                created_at=now,
            )
        )
        content = json.dumps([columns, schema.dialect], sort_keys=True)
        outbox.enqueue(
            connection,
            event_id=events.event_id(self._project, events.SCHEMA_CHANGED, dataset, form, numbered.version, content),
            name=events.SCHEMA_CHANGED,
            resource=events.dataset_resource(self._project, dataset),
            related=[],
            payload=events.schema_change(form, before, numbered, cause),
            occurred_at=now,
        )
        return numbered


def _own(connection: Connection, lease: Lease) -> None:
    row = connection.execute(select(leases.c.token, leases.c.holder).where(leases.c.dataset == lease.dataset)).first()
    if row is None or row.token != lease.token or row.holder != lease.holder:
        raise LeaseLost(f"the lease of {lease.dataset} with token {lease.token} is no longer this run's")


def _proposed(dataset: str) -> ColumnElement[bool]:
    return and_(schemas.c.dataset == dataset, schemas.c.version == _PROPOSED)


def _latest(connection: Connection, dataset: str, form: str) -> Schema | None:
    row = connection.execute(
        select(schemas)
        .where(schemas.c.dataset == dataset, schemas.c.format == form, schemas.c.version != _PROPOSED)
        .order_by(schemas.c.version.desc())
        .limit(1)
    ).first()
    return None if row is None else _schema(row)


def _schema(row: Row[Any]) -> Schema:
    return Schema(version=row.version, columns=tuple(Column(**column) for column in row.columns), dialect=row.dialect)
