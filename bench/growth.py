"""Ten new objects, claim to commit, with a million loaded ones in ledger and warehouse; against a thousand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from bench import parts, rows
from bench.figures import Figure, Result, Target, Wrong, middle, spread
from bench.session import Session
from penstock.declarations import Dataset
from penstock.flows.batch import Batch
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.model import State, Via
from penstock.objects import ObjectStore
from penstock.warehouse.duckdb import DuckDBWarehouse

_OBJECTS = 10
_TTL = timedelta(seconds=60)
_DECLARED = Dataset(
    name=parts.DATASET, columns={"id": "BIGINT", "name": "VARCHAR", "amount": "DOUBLE", "moment": "TIMESTAMP"}
)


@dataclass(kw_only=True)
class _Grown:
    """Ledger and warehouse of one size."""

    name: str
    folder: Path
    store: ObjectStore
    ledger: Ledger
    warehouse: DuckDBWarehouse
    ids: rows.Ids = field(default_factory=rows.Ids)
    claim_to_commit: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def load(self, *, count: int = _OBJECTS) -> None:
        """New objects arrive, and are loaded as a run does it."""
        landing = Landing(store=self.store, ledger=self.ledger, datasets=[_DECLARED], bucket=parts.BUCKET)
        keys = []
        for key, data in rows.files(self.ids, count, 1, f"{parts.DATASET}/{self.name}-{self.ids.next}"):
            self.store.put_bytes(parts.BUCKET, key, data)
            keys.append(key)
        landing.seen(parts.BUCKET, keys, Via.NOTIFICATION)

        began = time.perf_counter()
        work = self.ledger.work
        lease = work.acquire(parts.DATASET, holder="run", ttl=_TTL)
        if lease is None:
            raise Wrong("the lease is taken")
        claimed = time.perf_counter()
        refs = work.claim(lease, run="run", max_objects=1000, max_bytes=256_000_000)
        spool = self.folder / f"spool-{lease.token}"
        spool.mkdir()
        batch = Batch(
            refs,
            dataset=_DECLARED,
            lease=lease,
            run="run",
            store=self.store,
            ledger=self.ledger,
            warehouse=self.warehouse,
            landing=landing,
            spool=spool,
            clock=utc_now,
        )
        batch.fetch()
        batch.check()
        batch.load()
        committed = time.perf_counter()
        outcomes, _ = batch.settle()
        let_go = work.finish(lease)
        ended = time.perf_counter()
        batch.clean()
        if not let_go or [outcome.state for outcome in outcomes] != [State.LOADED] * count:
            raise Wrong(f"{count} objects became {[outcome.state.value for outcome in outcomes]}")
        self.claim_to_commit.append(committed - claimed)
        self.whole.append(ended - began)

    def verify(self) -> None:
        """Raise Wrong unless every new id is there once."""
        wanted = self.ids.next - 1
        sql = f"SELECT count(*), count(DISTINCT id), count(DISTINCT _penstock_object) FROM {parts.DATASET} WHERE id > 0"
        found = self.warehouse.query(sql, limit=2).rows[0]
        if tuple(found) != (wanted, wanted, wanted):
            raise Wrong(f"rows, ids and objects are {found}, and must each be {wanted}")


def run(session: Session) -> Result:
    """The same work in both, in turns."""
    few, many = session.pick((1000, 1_000_000), (100, 5000))
    rounds = session.pick(40, 3)
    with ExitStack() as stack:
        folder = session.new_folder("growth")
        store = stack.enter_context(parts.minio(folder / "minio")).client
        small = stack.enter_context(_grown(folder / "few", store, few, session))
        large = stack.enter_context(_grown(folder / "many", store, many, session))
        session.say(f"{_OBJECTS} new objects, {rounds} times each in turns")
        for _ in range(rounds):
            small.load()
            large.load()
        small.verify()
        large.verify()
    return Result(
        name="growth",
        title=f"{_OBJECTS} new objects with {many:,} loaded ones, against {few:,}",
        method=(
            f"Ledger (with a line of history each) and warehouse (with markers and rows) are filled with {few:,} and "
            f"with {many:,} loaded objects; then {_OBJECTS} new ones are loaded in the one and in the other in turns, "
            f"{rounds} times, by the code that a run executes, in this process. Medians."
        ),
        figures=[
            Figure(
                name="growth",
                what=f"{_OBJECTS} new objects at {many:,}, claim to commit",
                value=middle(large.claim_to_commit[1:]),
                unit="s",
                against=f"at {few:,}",
                peer=middle(small.claim_to_commit[1:]),
                target=Target(on="times", bound=1.2),
            ),
            Figure(
                name="growth_whole",
                what=f"{_OBJECTS} new objects at {many:,}, taking the lease to letting it go",
                value=middle(large.whole[1:]),
                unit="s",
                against=f"at {few:,}",
                peer=middle(small.whole[1:]),
            ),
        ],
        spread={f"at {few:,}": spread(small.claim_to_commit[1:]), f"at {many:,}": spread(large.claim_to_commit[1:])},
        verified=f"{rounds * _OBJECTS} new objects in each, every row once",
    )


@contextmanager
def _grown(folder: Path, store: ObjectStore, count: int, session: Session) -> Iterator[_Grown]:
    folder.mkdir(parents=True)
    with parts.ledger(folder) as ledger:
        grown = _Grown(
            name=folder.name,
            folder=folder,
            store=store,
            ledger=ledger,
            warehouse=DuckDBWarehouse(folder / "warehouse.duckdb"),
        )
        # The first load makes the tables and remembers the schema; it is the one that is left out.
        grown.load()
        session.say(f"filling ledger and warehouse with {count:,} objects")
        parts.fill_ledger(folder / "ledger.db", count)
        parts.fill_warehouse(folder / "warehouse.duckdb", count)
        yield grown
