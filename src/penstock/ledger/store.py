"""The ledger, whole: one database, and the sides from which it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.ledger.announcements import Announcements
from penstock.ledger.archive import Archive
from penstock.ledger.arrivals import Arrivals
from penstock.ledger.backlog import Backlog
from penstock.ledger.checked import Checked
from penstock.ledger.database import Clock, Database
from penstock.ledger.delivered import DeliveryFacts
from penstock.ledger.deliveries import Deliveries
from penstock.ledger.facts import Facts
from penstock.ledger.outbox import Outbox
from penstock.ledger.rejections import Rejections
from penstock.ledger.removals import Removals
from penstock.ledger.replay import Replay
from penstock.ledger.schemas import Schemas
from penstock.ledger.sweeps import Positions
from penstock.ledger.unusable import UnusableNotifications
from penstock.ledger.wakeups import WakeUps
from penstock.ledger.watermarks import Watermarks
from penstock.ledger.work import Work


class Ledger:
    """The durable record of every object and its state. Safe to share between threads.

    `arrivals` and `removals` are for sensors and notifications, `unusable` for those that are none, `deliveries` and
    `rejections` for the webhook, `work`, `schemas`, `watermarks` and `announcements` for runs, `wakeups` and `outbox`
    for the relay, `facts`, `delivered`, `backlog` and `replay` for people, `positions` for the sweep, `archive` for
    retention.
    """

    def __init__(
        self, url: str, *, project: str, clock: Clock | None = None, ring: Callable[[], None] = lambda: None
    ) -> None:
        self.database = Database(url, project=project, clock=clock, ring=ring)
        self.arrivals = Arrivals(self.database, project)
        self.announcements = Announcements(self.database, project)
        self.deliveries = Deliveries(self.database, project)
        self.work = Work(self.database, project)
        self.checked = Checked(self.database, project)
        self.wakeups = WakeUps(self.database)
        self.outbox = Outbox(self.database)
        self.schemas = Schemas(self.database, project)
        self.watermarks = Watermarks(self.database)
        self.facts = Facts(self.database)
        self.backlog = Backlog(self.database)
        self.delivered = DeliveryFacts(self.database)
        self.rejections = Rejections(self.database)
        self.replay = Replay(self.database)
        self.positions = Positions(self.database)
        self.archive = Archive(self.database)
        self.removals = Removals(self.database)
        self.unusable = UnusableNotifications(self.database)

    def check(self) -> None:
        """Raise LedgerUnavailable or NotMigrated unless the ledger can be worked with."""
        self.database.check()

    def migrate(self, *, lock_folder: Path) -> tuple[str | None, str]:
        """Bring the schema to this penstock's revision; returns (before, after)."""
        return self.database.migrate(lock_folder=lock_folder)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
