"""What every ledger must do while many work with it at once, and while somebody wants to migrate it."""

from __future__ import annotations

import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select, text

from penstock import events
from penstock.errors import LeaseLost, LedgerInUse, LedgerUnavailable, NotMigrated
from penstock.ledger import Ledger, database
from penstock.ledger.arrivals import Seen
from penstock.ledger.tables import history, objects
from penstock.model import Outcome, State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, PROJECT, SALES, TTL, Bench, delivery, postgres_bench, stat
from tests.real_postgres import shared_postgres
from tests.waiting import wait_for

OPEN = {State.PENDING.value, State.CLAIMED.value}


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


class Crowd:
    """Three sensors, two webhooks, two relays and three runs on one ledger, each with connections of its own.

    A run begins only when a relay woke it, and one in ten dies with its claim. The clock goes on while they work, so
    that leases also expire under runs that are alive.
    """

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.seed = seed
        self.sent: queue.Queue[str] = queue.Queue()
        self.stop = threading.Event()
        self.taken: list[tuple[int, int]] = []
        self.recorded: list[int] = []
        self.repeated: list[int] = []
        self.deaths = 0
        self.losses = 0

    def sensor(self, ledger: Ledger, chance: random.Random) -> None:
        """Record the same keys as every other sensor, each in an order of its own."""
        keys = [f"sales/{number}" for number in range(60)]
        chance.shuffle(keys)
        for start in range(0, len(keys), 6):
            seen = [Seen(stat=stat(key), dataset=SALES) for key in keys[start : start + 6]]
            self.recorded.append(ledger.arrivals.record(seen, Via.BUCKET))

    def webhook(self, ledger: Ledger, chance: random.Random) -> None:
        """Accept deliveries that the other webhook gets too."""
        numbers = list(range(30))
        chance.shuffle(numbers)
        for start in range(0, len(numbers), 3):
            key = f"_penstock/deliveries/sales/{chance.random()}"
            found = {entry: delivery(f"d{number}") for entry, number in enumerate(numbers[start : start + 3], start=1)}
            self.repeated.append(len(ledger.deliveries.record("landing", key, stat(key), found, Via.WEBHOOK)))

    def relay(self, ledger: Ledger, chance: random.Random) -> None:
        """Wake runs until all is done."""
        while not self.stop.is_set():
            ledger.wakeups.find()
            for wakeup in ledger.wakeups.take_due(again_after=TTL / 6):
                self.taken.append((wakeup.id, wakeup.attempt))
                self.sent.put(wakeup.dataset)
            self.bench.clock.forward(0.2)

    def run(self, ledger: Ledger, chance: random.Random) -> None:
        """Work whenever a relay says so."""
        while not self.stop.is_set():
            try:
                dataset = self.sent.get(timeout=0.05)
            except queue.Empty:
                continue
            lease = ledger.work.acquire(dataset, holder=str(chance.random()), ttl=TTL)
            if lease is None:
                continue
            try:
                while True:
                    refs = ledger.work.claim(lease, run="r", max_objects=7, max_bytes=10**9)
                    if chance.random() < 0.1:
                        self.deaths += 1
                        break
                    outcomes = [Outcome(ref=ref, state=State.LOADED, rows=1) for ref in refs]
                    ledger.work.settle(lease, outcomes, run="r")
                    if not refs and ledger.work.finish(lease):
                        break
            except LeaseLost:
                self.losses += 1

    def work(self) -> None:
        """Everybody at once, until everything is loaded; the first error of anybody is raised."""
        parts: list[tuple[Callable[[Ledger, random.Random], None], int]] = [
            (self.sensor, 3),
            (self.webhook, 2),
            (self.relay, 2),
            (self.run, 3),
        ]
        ledgers: list[Ledger] = []
        with ThreadPoolExecutor(10) as pool:
            working = []
            for part, number in parts:
                for _ in range(number):
                    ledgers.append(self.bench.open())
                    chance = random.Random(f"{self.seed}-{len(ledgers)}")  # noqa: S311 - no secret
                    working.append(pool.submit(part, ledgers[-1], chance))
            try:
                wait_for(lambda: self.is_done() or any(_failed(one) for one in working), seconds=90, what="all loaded")
            finally:
                self.stop.set()
            for one in working:
                one.result(30)
        for ledger in ledgers:
            ledger.close()

    def is_done(self) -> bool:
        """Whether all that was to come is there, and nothing is open."""
        with self.bench.ledger.database.read() as connection:
            states = list(connection.execute(select(objects.c.state)).scalars())
        return len(states) == 90 and not OPEN & set(states)


def _failed(work: object) -> bool:
    done, error = getattr(work, "done"), getattr(work, "exception")  # noqa: B009
    return bool(done() and error())


def test_many_at_once_lose_nothing_and_do_nothing_twice(bench: Bench) -> None:
    """Whatever sensors, webhooks, relays and runs do at once, each arrival is one row, loaded once, and none waits."""
    crowd = Crowd(bench, seed=4)
    crowd.work()
    rows = bench.rows()
    keys = Counter((row.key, row.generation) for row in rows if not row.entry)
    assert keys == {(f"sales/{number}", 1): 1 for number in range(60)}
    assert Counter(row.delivery for row in rows if row.entry) == {f"d{number}": 1 for number in range(30)}
    assert sum(crowd.recorded) == 60
    assert sum(crowd.repeated) == 30
    with bench.ledger.database.read() as connection:
        loads = Counter(
            connection.execute(select(history.c.object_id).where(history.c.what == State.LOADED.value)).scalars()
        )
    assert loads == {row.id: 1 for row in rows}
    assert max(Counter(crowd.taken).values()) == 1, "two relays sent one attempt of a wake-up"
    told = [event for event in bench.ledger.outbox.unsent(10_000) if event.name == events.DATASET_LOADED]
    assert sum(event.payload["objects"] for event in told) == 90
    assert crowd.deaths


def test_a_settle_and_a_takeover_at_once(bench: Bench) -> None:
    """Of a late holder's settle and its successor's acquire, one comes first: settled and kept, or lost and back."""
    second = bench.open()
    for number in range(15):
        bench.arrive(f"sales/{number}")
        lease = bench.take(holder="one")
        refs = bench.claim(lease)
        bench.clock.forward(31)
        gate = threading.Barrier(2)

        def settle(gate: threading.Barrier = gate, lease: object = lease, refs: object = refs) -> bool:
            gate.wait(30)
            try:
                bench.settle(lease, *refs)  # type: ignore[arg-type, misc]
            except LeaseLost:
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            settled = pool.submit(settle)
            gate.wait(30)
            newer = second.work.acquire("sales", holder="two", ttl=TTL)
            assert newer is not None
            kept = settled.result(30)
        left = second.work.claim(newer, run="r2", max_objects=9, max_bytes=10**9)
        assert [ref.id for ref in left] == ([] if kept else [ref.id for ref in refs])
        second.work.settle(newer, [Outcome(ref=ref, state=State.LOADED, rows=1) for ref in left], run="r2")
        assert second.work.finish(newer)
    second.close()
    assert {row.state for row in bench.rows()} == {"loaded"}


# An older penstock at work: it checks the ledger for its own revision and goes on until it is killed.
_OLDER = """
import sys

from penstock.ledger import Ledger, database, owner

database.HEAD = "0001"
# It knew of no owner.
owner.refuse_another = lambda connection, project: None
ledger = Ledger(sys.argv[1], project="p")
ledger.check()
print("at work", flush=True)
sys.stdin.read()
"""


@contextmanager
def older_ledger(backend: str, folder: Path) -> Iterator[str]:
    """The URL of a ledger that the first revision made."""
    if backend == "postgres":
        server = shared_postgres()
        with server.database() as name:
            url = server.url(name, scheme="postgresql+psycopg")
            _upgrade(url, "0001")
            yield url
    else:
        url = f"sqlite:///{folder / 'ledger.db'}"
        _upgrade(url, "0001")
        yield url


def _upgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "penstock.ledger:migrations")
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def migrate(url: str) -> tuple[str | None, str]:
    with TemporaryDirectory() as folder:
        ledger = Ledger(url, project=PROJECT)
        try:
            return ledger.migrate(lock_folder=Path(folder))
        finally:
            ledger.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_migrates_while_an_older_one_works(backend: str, tmp_path: Path) -> None:
    """A migration names the process that works with the ledger and changes nothing; after its kill -9 it is done."""
    with older_ledger(backend, tmp_path) as url:
        child = subprocess.Popen([sys.executable, "-c", _OLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"at work\n"
            with pytest.raises(LedgerInUse, match=rf"process {child.pid}\b.*penstock migrate"):
                migrate(url)
        finally:
            child.kill()
            child.communicate(timeout=60)

        def migrated() -> tuple[str | None, str] | None:
            try:
                return migrate(url)
            except LedgerInUse:  # the server has not noticed the death yet
                return None

        assert wait_for(migrated, what="the migration") == ("0001", database.HEAD)
        ledger = Ledger(url, project=PROJECT)
        ledger.check()
        ledger.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_migrations_at_once(backend: str, tmp_path: Path) -> None:
    """Of two that migrate at the same moment, from different machines even, one does it and both are content."""
    with older_ledger(backend, tmp_path) as url, ThreadPoolExecutor(2) as pool:
        found = sorted(before or "" for before, _ in pool.map(migrate, [url, url]))
    assert found == ["0001", database.HEAD]


def test_nothing_to_migrate_disturbs_nobody(bench: Bench) -> None:
    """With the right revision there, `migrate` is done at once, whoever works."""
    bench.ledger.check()
    bench.arrive("sales/1")
    assert migrate(bench.url) == (database.HEAD, database.HEAD)
    assert bench.arrive("sales/2") == 1


def test_whoever_lets_go_of_the_ledger_is_no_longer_at_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed ledger, and one that was refused, hold no migration up; one at work does."""
    real = database.HEAD
    second = bench.open()
    second.check()
    bench.ledger.check()
    monkeypatch.setattr("alembic.command.upgrade", lambda *_: None)
    monkeypatch.setattr(database, "HEAD", "9998")
    with pytest.raises(LedgerInUse):
        migrate(bench.url)
    second.close()
    with pytest.raises(LedgerInUse):
        migrate(bench.url)
    with pytest.raises(NotMigrated):
        bench.ledger.check()
    assert migrate(bench.url) == (real, "9998")


class TestPostgres:
    """What a server that goes away, or a stopped client, does to the others."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        """On PostgreSQL only."""
        with postgres_bench(tmp_path) as made:
            yield made

    def test_what_was_migrated_while_the_server_was_away_is_noticed(self, bench: Bench) -> None:
        """A process whose connections broke does not write to a ledger that became another's meanwhile."""
        bench.ledger.check()
        bench.arrive("sales/1")
        name = bench.url.rpartition("/")[2]
        server = shared_postgres()
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        assert bench.arrive("sales/2") == 1
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        server.execute("UPDATE alembic_version SET version_num = '9999'", name)
        with pytest.raises(NotMigrated, match="newer penstock"):
            bench.arrive("sales/3")

    def test_a_stopped_writer_keeps_the_others_only_so_long(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server ends a transaction in which nothing happens; what it wrote is gone, and its owner is told."""
        monkeypatch.setattr("penstock.ledger.postgres.STALLED_SECONDS", 1)
        stalled = bench.open()
        began = time.monotonic()

        def write_and_stall() -> None:
            with stalled.database.write() as connection:
                connection.execute(text("UPDATE objects SET reason = 'x'"))
                assert bench.arrive("sales/2") == 1

        bench.arrive("sales/1")
        with pytest.raises(LedgerUnavailable):
            write_and_stall()
        assert time.monotonic() - began < 20
        assert [row.reason for row in bench.rows()] == [None, None]
        stalled.close()

    def test_text_with_a_nul(self, bench: Bench) -> None:
        """A reason that holds U+0000, which PostgreSQL cannot store, is stored with U+FFFD in its place."""
        bench.arrive("sales/1")
        lease = bench.take()
        (ref,) = bench.claim(lease)
        outcome = Outcome(ref=ref, state=State.QUARANTINED, reason="not BIGINT: a\0b")
        bench.ledger.work.settle(lease, [outcome], run="r")
        assert bench.rows()[0].reason == "not BIGINT: a\ufffdb"
        assert bench.ledger.outbox.unsent(9)[-1].payload["key"] == "sales/1"


def test_the_ledgers_clock_is_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines whose clocks are an hour apart agree on when a lease expires: PostgreSQL's clock decides."""
    with MAKERS["postgres"](tmp_path) as bench:
        ahead = Ledger(bench.url, project=PROJECT)
        assert ahead.work.acquire("sales", holder="right", ttl=TTL) is not None
        monkeypatch.setattr(database, "utc_now", lambda: datetime.now(UTC) + timedelta(hours=1))
        try:
            assert ahead.work.acquire("sales", holder="ahead", ttl=TTL) is None
            assert abs(ahead.database.clock() - datetime.now(UTC)) < timedelta(seconds=10)
        finally:
            ahead.close()
