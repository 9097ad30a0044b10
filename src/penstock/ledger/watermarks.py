"""How far the events that datasets tell of have come, and how many rows came too late."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite

from penstock.ledger.database import Database
from penstock.ledger.tables import watermarks


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """The greatest event time that was loaded of a dataset, and how many rows came late in all."""

    event_time: datetime
    late: int


class Watermarks:
    """One for each dataset that declares an `event_time`, once something was loaded."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, dataset: str) -> Watermark | None:
        """The dataset's, or None before the first event time."""
        query = select(watermarks.c.event_time, watermarks.c.late).where(watermarks.c.dataset == dataset)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return Watermark(event_time=row.event_time, late=row.late) if row is not None else None

    def advance(self, dataset: str, event_time: datetime, *, late: int) -> None:
        """Move it on to `event_time`, never back, and count `late` more rows."""
        dialect = sqlite if self._database.is_sqlite else postgresql
        new = dialect.insert(watermarks).values(dataset=dataset, event_time=event_time, late=late)
        greatest = case(
            (watermarks.c.event_time < new.excluded.event_time, new.excluded.event_time), else_=watermarks.c.event_time
        )
        with self._database.write() as connection:
            connection.execute(
                new.on_conflict_do_update(
                    index_elements=[watermarks.c.dataset],
                    set_={"event_time": greatest, "late": watermarks.c.late + new.excluded.late},
                )
            )
