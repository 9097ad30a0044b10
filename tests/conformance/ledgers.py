"""The ledgers the conformance suites run on: empty and migrated, each with a clock that a test sets.

A new backend is one more entry in `MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import select

from penstock.declarations import Dataset
from penstock.ledger import Ledger
from penstock.ledger.arrivals import Seen
from penstock.ledger.tables import objects
from penstock.model import Delivery, Lease, ObjectRef, Outcome, Stat, State, Via
from tests.real_postgres import prepared, shared_postgres

PROJECT = "p"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TTL = timedelta(seconds=30)
SALES = Dataset(name="sales")


@dataclass(kw_only=True)
class FakeClock:
    """A clock that stands still until a test moves it."""

    now: datetime = START

    def __call__(self) -> datetime:
        """The time it shows."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Move it."""
        self.now += timedelta(seconds=seconds)


@dataclass(kw_only=True)
class Bench:
    """A ledger to test: `url` opens it a second time. What a failed test left open is closed with it."""

    url: str
    clock: FakeClock = field(default_factory=FakeClock)
    ledger: Ledger = field(init=False)
    opened: list[Ledger] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = self.open()

    def open(self) -> Ledger:
        """One more Ledger on the same database and clock."""
        self.opened.append(Ledger(self.url, project=PROJECT, clock=self.clock))
        return self.opened[-1]

    def close(self) -> None:
        """Close every one of them."""
        for ledger in self.opened:
            ledger.close()

    def arrive(
        self, key: str, etag: str = "a", *, dataset: Dataset | None = SALES, size: int = 10, version: str | None = None
    ) -> int:
        """Record one object; how many were new."""
        return self.ledger.arrivals.record(
            [Seen(stat=stat(key, etag, size=size, version=version), dataset=dataset)], Via.BUCKET
        )

    def acquire(self, dataset: str = "sales", *, holder: str = "one") -> Lease | None:
        """Take the lease for `TTL`."""
        return self.ledger.work.acquire(dataset, holder=holder, ttl=TTL)

    def take(self, dataset: str = "sales", *, holder: str = "one") -> Lease:
        """Take the lease, which must be free."""
        lease = self.acquire(dataset, holder=holder)
        assert lease is not None
        return lease

    def claim(self, lease: Lease, *, run: str = "r1", objects: int = 100, size: int = 1_000_000) -> list[ObjectRef]:
        """Claim what is pending."""
        return self.ledger.work.claim(lease, run=run, max_objects=objects, max_bytes=size)

    def settle(self, lease: Lease, *refs: ObjectRef, state: State = State.LOADED, reason: str | None = None) -> None:
        """Settle claimed objects, all with the same outcome."""
        reason = reason or (None if state is State.LOADED else state.value)
        outcomes = [Outcome(ref=ref, state=state, rows=2, rejected=1, reason=reason) for ref in refs]
        self.ledger.work.settle(lease, outcomes, run="r1")

    def rows(self) -> list[Any]:
        """Every object row, in arrival order."""
        with self.ledger.database.read() as connection:
            return list(connection.execute(select(objects).order_by(objects.c.id)).all())

    def states(self) -> list[tuple[str, int, str]]:
        """(key, generation, state) of every row, in arrival order."""
        return [(row.key, row.generation, row.state) for row in self.rows()]

    def woken(self) -> list[str]:
        """The datasets with an outstanding wake-up."""
        return [wakeup.dataset for wakeup in self.ledger.wakeups.outstanding()]

    def everything(self) -> list[Any]:
        """The whole content of the ledger, to tell whether anything changed."""
        tables = ("objects", "history", "leases", "wakeups", "outbox", "files", "archive", "tallies")
        with self.ledger.database.read() as connection:
            return [connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").all() for table in tables]


def stat(key: str, etag: str = "a", *, size: int = 10, version: str | None = None) -> Stat:
    return Stat(bucket="landing", key=key, etag=etag, size=size, modified=START, version_id=version)


def delivery(id: str, *, source: str = "shop", dataset: str = "sales", body: bytes = b"{}") -> Delivery:
    return Delivery(
        id=id,
        source=source,
        dataset=dataset,
        received_at=START,
        content_type="application/json",
        headers={},
        body=body,
    )


def declared(name: str, **changes: Any) -> Dataset:
    return replace(SALES, name=name, prefix=f"{name}/", **changes)


@cache
def _migrated_sqlite() -> bytes:
    with TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db", project=PROJECT)
        ledger.migrate(lock_folder=Path(folder))
        ledger.close()
        return (Path(folder) / "ledger.db").read_bytes()


@contextmanager
def sqlite_bench(folder: Path) -> Iterator[Bench]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ledger.db"
    path.write_bytes(_migrated_sqlite())
    bench = Bench(url=f"sqlite:///{path}")
    try:
        yield bench
    finally:
        bench.close()


def _migrate(url: str) -> None:
    with TemporaryDirectory() as folder:
        ledger = Ledger(url, project=PROJECT)
        ledger.migrate(lock_folder=Path(folder))
        ledger.close()


@contextmanager
def postgres_bench(folder: Path) -> Iterator[Bench]:
    server = shared_postgres()
    with server.database(prepared("migrated_ledger", _migrate)) as name:
        bench = Bench(url=server.url(name, scheme="postgresql+psycopg"))
        try:
            yield bench
        finally:
            bench.close()


MAKERS: dict[str, Callable[[Path], Any]] = {"postgres": postgres_bench, "sqlite": sqlite_bench}
BACKENDS: Sequence[str] = sorted(MAKERS)
