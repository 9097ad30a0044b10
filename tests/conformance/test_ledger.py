"""What every ledger must do: schema, arrivals, deliveries, refusals, outbox, and whole transactions.

The run's side (leases, claims, outcomes) is in test_ledger_work.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from penstock import events
from penstock.errors import LedgerUnavailable, NotMigrated, SettingsError
from penstock.ledger import Ledger, database, states, tables, wakeups
from penstock.ledger.arrivals import FileMark, Seen
from penstock.ledger.rows import move
from penstock.ledger.tables import metadata
from penstock.model import REFUSED_BUCKET, Delivery, Outcome, State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, PROJECT, SALES, START, Bench, declared, delivery, stat
from tests.waiting import wait_for

OTHERS = declared("others")
MARK = FileMark(path="sales/a.csv", inode=1, size=2, mtime_ns=3)


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def deliver(bench: Bench, *found: Delivery, key: str = "_penstock/deliveries/sales/1") -> set[int]:
    return bench.ledger.deliveries.record("landing", key, stat(key), dict(enumerate(found, start=1)), Via.WEBHOOK)


def set_revision(bench: Bench, revision: str) -> None:
    with bench.ledger.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


class TestSchema:
    """The migrated schema, and what it refuses by itself."""

    def test_the_migrations_make_what_the_tables_say(self, bench: Bench) -> None:
        """After the migrations nothing is left for Alembic to add, and every CHECK and partial index is there."""
        with bench.ledger.database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            found = inspect(connection)
            for table in metadata.tables.values():
                # PostgreSQL tells a CHECK in its own words; what each refuses is tested below.
                told = bench.ledger.database.is_sqlite
                made = {(c["name"], told and c["sqltext"]) for c in found.get_check_constraints(table.name)}
                said = {(c.name, told and str(c.sqltext)) for c in table.constraints if hasattr(c, "sqltext")}
                assert made == said, table.name
                # PostgreSQL also tells the index behind a UNIQUE constraint.
                there = [i for i in found.get_indexes(table.name) if not i.get("duplicates_constraint")]
                assert {i["name"] for i in there} == {i.name for i in table.indexes}

    def test_head_is_the_newest_script(self) -> None:
        """`database.HEAD` is the one head of the scripts, and their numbers sort in their order."""
        config = Config()
        config.set_main_option("script_location", "penstock.ledger:migrations")
        scripts = ScriptDirectory.from_config(config)
        assert scripts.get_heads() == [database.HEAD]
        in_order = [script.revision for script in scripts.walk_revisions()][::-1]
        assert in_order == sorted(in_order)

    def test_an_empty_database_is_refused_then_made(self, tmp_path: Path) -> None:
        """A ledger without tables is refused with the command to run, and that command makes it usable."""
        ledger = Ledger(f"sqlite:///{tmp_path}/deep/ledger.db", project=PROJECT)
        with pytest.raises(NotMigrated, match="penstock migrate"):
            ledger.check()
        assert ledger.migrate(lock_folder=tmp_path) == (None, database.HEAD)
        ledger.check()
        assert ledger.migrate(lock_folder=tmp_path) == (database.HEAD, database.HEAD)
        ledger.close()

    def test_a_newer_revision_is_refused_and_not_touched(self, bench: Bench, tmp_path: Path) -> None:
        """A ledger made by a newer penstock is refused by check and by migrate, and stays as it is."""
        set_revision(bench, "9999")
        with pytest.raises(NotMigrated, match="newer penstock"):
            bench.ledger.check()
        with pytest.raises(NotMigrated, match="newer penstock"):
            bench.ledger.migrate(lock_folder=tmp_path)
        with bench.ledger.database.read() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["9999"]

    def test_another_projects_ledger_is_refused(self, bench: Bench, tmp_path: Path) -> None:
        """A database is the first project's that opens it; a file's project may have a new name, as its folder may."""
        other = Ledger(bench.url, project="depot")
        bench.opened.append(other)
        if other.database.is_sqlite:
            assert other.migrate(lock_folder=tmp_path) == (database.HEAD, database.HEAD)
            other.check()
            return
        for refused in (other.check, lambda: other.migrate(lock_folder=tmp_path)):
            with pytest.raises(SettingsError, match=f"that of the project '{PROJECT}'.*PENSTOCK_PROJECT={PROJECT}"):
                refused()
        bench.ledger.check()
        # As one that an older penstock made.
        with bench.ledger.database.write() as connection:
            connection.execute(tables.owner.delete())
        bench.ledger.check()
        bench.ledger.close()
        other.migrate(lock_folder=tmp_path)
        with pytest.raises(SettingsError, match="'depot'"):
            bench.ledger.check()

    def test_an_older_revision_is_refused_with_the_command(self, bench: Bench) -> None:
        """A ledger of an older penstock is refused with both revisions and the command to run."""
        set_revision(bench, "0000")
        with pytest.raises(NotMigrated, match=rf"0000.*{database.HEAD}.*penstock migrate"):
            bench.ledger.check()

    @pytest.mark.parametrize(
        ("change", "constraint"),
        [
            ("state = 'gone'", "state_known"),
            ("state = 'claimed'", "claimed_has_token"),
            ("claim_token = 1", "claimed_has_token"),
            ("dataset = NULL", "has_dataset"),
            ("state = 'loaded'", "loaded_has_rows"),
            ("state = 'quarantined'", "quarantined_has_reason"),
            ("entry = 1", "entry_has_delivery"),
            ("delivery = 'x'", "entry_has_delivery"),
        ],
    )
    def test_the_database_itself_refuses_a_row_that_cannot_be(self, bench: Bench, change: str, constraint: str) -> None:
        """Each CHECK refuses the row it is there for, whoever writes it."""
        bench.arrive("sales/a.csv")
        with pytest.raises(IntegrityError, match=constraint), bench.ledger.database.write() as connection:
            connection.execute(text(f"UPDATE objects SET {change}"))

    def test_a_token_is_positive(self, bench: Bench) -> None:
        """A lease's token can never be 0, which would be no greater than none."""
        bench.take()
        with pytest.raises(IntegrityError, match="token_positive"), bench.ledger.database.write() as connection:
            connection.execute(text("UPDATE leases SET token = 0"))

    @pytest.mark.parametrize("target", State)
    @pytest.mark.parametrize("origin", State)
    def test_only_legal_moves_are_made(self, bench: Bench, origin: State, target: State) -> None:
        """For every pair of states the UPDATE moves the row when the table allows it, and else leaves it alone."""
        bench.arrive("sales/a.csv")
        with bench.ledger.database.write() as connection:
            connection.execute(
                text("UPDATE objects SET state = :state, reason = 'x', rows = 1, claim_token = :token"),
                {"state": origin.value, "token": 1 if origin is State.CLAIMED else None},
            )
        values = {"claim_token": 2 if target is State.CLAIMED else None, "changed_at": START}
        with bench.ledger.database.write() as connection:
            moved = move(connection, [bench.rows()[0].id], target, values)
        legal = target in states.MOVES[origin]
        assert moved == legal
        assert bench.rows()[0].state == (target if legal else origin)


class TestArrivals:
    """Objects, refusals and file marks."""

    def test_the_same_object_five_times_is_one_arrival(self, bench: Bench) -> None:
        """One stat, seen in one call and in five, by every way, makes one row, one event and one wake-up."""
        one = Seen(stat=stat("sales/a.csv"), dataset=SALES)
        assert bench.ledger.arrivals.record([one, one], Via.FOLDER) == 1
        for via in Via:
            assert bench.ledger.arrivals.record([one], via) == 0
        assert bench.states() == [("sales/a.csv", 1, "pending")]
        assert bench.rows()[0].via == Via.FOLDER
        assert bench.ledger.outbox.count() == 1
        assert bench.woken() == ["sales"]

    def test_there_and_back_is_three_generations(self, bench: Bench) -> None:
        """A, B, A is three generations, of which those that were overwritten while they waited are superseded."""
        for etag in "aba":
            assert bench.arrive("sales/a.csv", etag) == 1
        assert bench.states() == [
            ("sales/a.csv", 1, "superseded"),
            ("sales/a.csv", 2, "superseded"),
            ("sales/a.csv", 3, "pending"),
        ]
        story = bench.ledger.facts.stories("landing/sales/a.csv@1")
        assert [fact.what for fact in story[-1].facts] == ["superseded"]

    def test_there_and_back_in_one_call_is_three_generations(self, bench: Bench) -> None:
        """A call that brings several generations of a key keeps them apart and in order."""
        seen = [Seen(stat=stat("sales/a.csv", etag), dataset=SALES) for etag in "aba"]
        assert bench.ledger.arrivals.record(seen, Via.BUCKET) == 3
        assert [state for _, _, state in bench.states()] == ["superseded", "superseded", "pending"]

    def test_more_keys_than_one_query_takes(self, bench: Bench) -> None:
        """Twelve hundred keys in one call are all recorded once, and known as such the second time."""
        seen = [Seen(stat=stat(f"sales/{n}"), dataset=SALES) for n in range(1200)]
        assert bench.ledger.arrivals.record(seen, Via.SWEEP) == 1200
        assert bench.ledger.arrivals.record(seen, Via.SWEEP) == 0
        assert len(bench.ledger.arrivals.latest("landing", [f"sales/{n}" for n in range(1300)])) == 1200

    def test_what_was_loaded_stays_loaded_until_replaced(self, bench: Bench) -> None:
        """Overwriting what was loaded leaves it loaded; the run that loads the newer one is told to take it out."""
        bench.arrive("sales/a.csv", "a")
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        bench.arrive("sales/a.csv", "b")
        assert [state for _, _, state in bench.states()] == ["loaded", "pending"]
        newer = bench.claim(lease)
        assert {id: [old.generation for old in found] for id, found in bench.ledger.work.older(newer).items()} == {
            newer[0].id: [1]
        }

    def test_what_ended_unread_is_back_with_the_same_etag(self, bench: Bench) -> None:
        """An object that was missing when it was read, and is there again, is a new generation."""
        bench.arrive("sales/a.csv")
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease), state=State.MISSING)
        assert bench.arrive("sales/a.csv") == 1
        assert [state for _, _, state in bench.states()] == ["missing", "pending"]

    def test_ignore_leaves_an_overwrite_alone(self, bench: Bench) -> None:
        """With ignore what overwrites a loaded object is recorded as ignored and wakes nobody."""
        first = declared("once", on_overwrite="ignore")
        bench.arrive("once/a", "a", dataset=first)
        lease = bench.take("once")
        bench.settle(lease, *bench.claim(lease))
        bench.ledger.work.finish(lease)
        assert bench.arrive("once/a", "b", dataset=first) == 0
        assert bench.states() == [("once/a", 1, "loaded"), ("once/a", 2, "ignored")]
        assert bench.woken() == []

    def test_ignore_loads_the_overwrite_when_the_first_cannot_be_read(self, bench: Bench) -> None:
        """With ignore, a claimed object that turns out to be overwritten gives way to what was ignored meanwhile."""
        first = declared("once", on_overwrite="ignore")
        bench.arrive("once/a", "a", dataset=first)
        lease = bench.take("once")
        claimed = bench.claim(lease)
        bench.arrive("once/a", "b", dataset=first)
        bench.arrive("once/a", "c", dataset=first)
        bench.settle(lease, *claimed, state=State.SUPERSEDED)
        assert bench.states() == [("once/a", 1, "superseded"), ("once/a", 2, "ignored"), ("once/a", 3, "pending")]
        assert not bench.ledger.work.finish(lease)

    @pytest.mark.parametrize(("version", "first"), [("v1", "pending"), (None, "superseded")])
    def test_append_keeps_what_the_store_kept(self, bench: Bench, version: str | None, first: str) -> None:
        """With append both generations load where the store has versions; elsewhere the older bytes are gone."""
        logs = declared("logs", on_overwrite="append")
        bench.arrive("logs/a", "a", dataset=logs, version=version)
        bench.arrive("logs/a", "b", dataset=logs, version=version and "v2")
        assert bench.states() == [("logs/a", 1, first), ("logs/a", 2, "pending")]

    def test_a_key_that_no_dataset_takes_waits_until_one_does(self, bench: Bench) -> None:
        """An unknown prefix is quarantined with what to do, wakes nobody, and is adopted when a dataset takes it."""
        assert bench.arrive("others/a.csv", dataset=None) == 0
        assert bench.arrive("otherwise/a.csv", dataset=None) == 0
        assert bench.woken() == []
        assert bench.rows()[0].reason.count("'others/'") == 1
        assert {state for _, _, state in bench.states()} == {"quarantined"}
        assert bench.ledger.arrivals.adopt([SALES, OTHERS]) == 1
        assert bench.states() == [("others/a.csv", 1, "pending"), ("otherwise/a.csv", 1, "quarantined")]
        assert bench.woken() == ["others"]
        assert [fact.what for fact in bench.ledger.facts.stories("others/a.csv")[0].facts] == ["pending"]
        assert bench.ledger.arrivals.adopt([SALES, OTHERS]) == 0
        assert [ref.key for ref in bench.claim(bench.take("others"))] == ["others/a.csv"]

    def test_an_event_per_object_is_the_datasets_choice(self, bench: Bench) -> None:
        """A batch makes one summary event; a dataset that asks for it gets one for each object besides."""
        each = declared("each", event_per_object=True)
        found = [Seen(stat=stat(f"sales/{n}", size=n), dataset=SALES) for n in range(20)]
        found += [Seen(stat=stat(f"each/{n}"), dataset=each) for n in range(3)]
        bench.ledger.arrivals.record(found, Via.BUCKET)
        by_resource: dict[str, list[Any]] = {}
        for event in bench.ledger.outbox.unsent(100):
            assert event.name == events.OBJECT_ARRIVED
            by_resource.setdefault(event.resource["prefect.resource.id"], []).append(event.payload)
        summary = by_resource["penstock.p.dataset.sales"]
        assert summary == [{"objects": 20, "bytes": 190, "keys": [f"sales/{n}" for n in range(10)]}]
        assert len(by_resource["penstock.p.dataset.each"]) == 1
        assert sorted(name for name in by_resource if ".object." in name) == [
            f"penstock.p.object.landing/each/{n}" for n in range(3)
        ]

    def test_a_file_mark_comes_with_the_arrival(self, bench: Bench) -> None:
        """What was remembered of a file is there with its arrival, follows it, and can be forgotten."""
        marks = bench.ledger.arrivals.file_marks
        bench.ledger.arrivals.record([Seen(stat=stat("sales/a.csv"), dataset=SALES, mark=MARK)], Via.FOLDER)
        assert marks(["sales/a.csv", "sales/b.csv"]) == {"sales/a.csv": MARK}
        touched = FileMark(path=MARK.path, inode=1, size=2, mtime_ns=4, etag="e")
        bench.ledger.arrivals.record([Seen(stat=stat("sales/a.csv"), dataset=SALES, mark=touched)], Via.FOLDER)
        assert marks([MARK.path]) == {MARK.path: touched}
        bench.ledger.arrivals.forget_files([MARK.path])
        assert marks([MARK.path]) == {}

    def test_a_refusal_is_recorded_once_for_each_file(self, bench: Bench) -> None:
        """The same refused file is one row; another file of that name supersedes it; a file that left leaves none."""
        arrivals = bench.ledger.arrivals
        assert arrivals.refuse("sales/link", "it is a symlink", mark=MARK, via=Via.FOLDER)
        assert not arrivals.refuse("sales/link", "it is a symlink", mark=MARK, via=Via.FOLDER)
        other = FileMark(path=MARK.path, inode=2, size=2, mtime_ns=3)
        assert arrivals.refuse("sales/link", "it is a symlink", mark=other, via=Via.FOLDER)
        assert bench.states() == [("sales/link", 1, "superseded"), ("sales/link", 2, "quarantined")]
        assert bench.ledger.arrivals.file_marks([MARK.path]) == {MARK.path: other}
        assert arrivals.adopt([SALES]) == 0
        arrivals.forget_refusal("sales/link")
        assert [state for _, _, state in bench.states()] == ["superseded", "superseded"]
        arrivals.forget_refusal("sales/link")
        assert arrivals.refuse("sales/link", "again", mark=MARK, via=Via.FOLDER)
        assert {row.bucket for row in bench.rows()} == {REFUSED_BUCKET}
        assert bench.woken() == []

    def test_a_refusal_is_over_with_the_arrival_of_its_file(self, bench: Bench) -> None:
        """A file that can be taken by now ends its own refusal with its arrival, and no other's."""
        arrivals = bench.ledger.arrivals
        for key in ("sales/a.csv", "sales/b.csv"):
            arrivals.refuse(key, "no dataset takes it", mark=replace(MARK, path=key), via=Via.FOLDER)
        refused_b = Seen(stat=stat("sales/b.csv"), dataset=SALES, mark=replace(MARK, path="sales/b.csv"))
        taken_a = Seen(stat=stat("sales/a.csv"), dataset=SALES, mark=MARK, was_refused=True)
        assert arrivals.record([taken_a, refused_b], Via.FOLDER) == 2
        states = {(row.bucket, row.key): row.state for row in bench.rows()}
        assert (states[REFUSED_BUCKET, "sales/a.csv"], states[REFUSED_BUCKET, "sales/b.csv"]) == (
            State.SUPERSEDED.value,
            State.QUARANTINED.value,
        )
        assert arrivals.record([taken_a], Via.FOLDER) == 0


class TestDeliveries:
    """Webhook deliveries."""

    def test_a_delivery_twice_is_one(self, bench: Bench) -> None:
        """A delivery id that came before, in another envelope or in the same one, makes no second row."""
        assert deliver(bench, delivery("1"), delivery("2"), delivery("1")) == {3}
        assert deliver(bench, delivery("2"), delivery("3"), key="_penstock/deliveries/sales/2") == {1}
        assert [(row.delivery, row.key[-1], row.entry) for row in bench.rows()] == [
            ("1", "1", 1),
            ("2", "1", 2),
            ("3", "2", 2),
        ]
        assert bench.ledger.deliveries.known("shop", ["1", "3", "4"]) == {"1", "3"}

    def test_an_envelope_that_is_recorded_in_part_is_completed(self, bench: Bench) -> None:
        """What is recorded of an envelope already is known; the rest is new, whoever recorded the first part."""
        key = "_penstock/deliveries/sales/1"
        first, both = {1: delivery("1")}, {1: delivery("1"), 2: delivery("2")}
        assert bench.ledger.deliveries.record("landing", key, stat(key), first, Via.WEBHOOK) == set()
        assert bench.ledger.deliveries.record("landing", key, stat(key), both, Via.SWEEP) == {1}
        assert [row.entry for row in bench.rows()] == [1, 2]

    def test_only_a_known_id_is_passed_over(self, bench: Bench) -> None:
        """A delivery that the table refuses for another reason than its id is an error, never taken as known."""
        with pytest.raises(IntegrityError):
            deliver(bench, replace(delivery("1"), dataset=None))  # type: ignore[arg-type]
        assert bench.rows() == []

    def test_ids_are_a_sources_own(self, bench: Bench) -> None:
        """Two sources may use the same delivery id; both deliveries are kept."""
        assert deliver(bench, delivery("1"), delivery("1", source="mill")) == set()
        assert bench.ledger.deliveries.known("mill", ["1"]) == {"1"}
        assert bench.ledger.deliveries.known("else", ["1"]) == set()

    def test_two_threads_with_the_same_delivery_record_it_once(self, bench: Bench) -> None:
        """Of two envelopes with the same deliveries that are recorded at once, each id is one row, one is told so."""
        second = bench.open()
        found = [delivery(str(n)) for n in range(20)]

        def record(ledger: Ledger, key: str) -> set[int]:
            key = f"_penstock/deliveries/sales/{key}"
            entries = dict(enumerate(found, start=1))
            return ledger.deliveries.record("landing", key, stat(key), entries, Via.WEBHOOK)

        with ThreadPoolExecutor(2) as pool:
            raced = list(pool.map(record, [bench.ledger, second], ["1", "2"]))
        second.close()
        assert sorted(row.delivery for row in bench.rows()) == sorted(str(n) for n in range(20))
        assert sorted(len(lost) for lost in raced) == [0, 20]

    def test_only_new_deliveries_are_announced_and_wake(self, bench: Bench) -> None:
        """A call that brings nothing new makes no event; what is new is counted alone."""
        deliver(bench, delivery("1", body=b"12345"))
        deliver(bench, delivery("1", body=b"12345"), key="_penstock/deliveries/sales/2")
        deliver(bench, delivery("1"), delivery("2", body=b"12"), key="_penstock/deliveries/sales/3")
        payloads = [event.payload for event in bench.ledger.outbox.unsent(10)]
        assert [(payload["objects"], payload["bytes"]) for payload in payloads] == [(1, 5), (1, 2)]
        assert bench.woken() == ["sales"]
        assert deliver(bench) == set()

    def test_a_delivery_is_claimed_by_its_entry(self, bench: Bench) -> None:
        """A claimed delivery names its envelope, its entry and its id."""
        deliver(bench, delivery("1"), delivery("2"))
        found = bench.claim(bench.take())
        assert [(ref.name, ref.delivery) for ref in found] == [
            ("landing/_penstock/deliveries/sales/1@1#1", "1"),
            ("landing/_penstock/deliveries/sales/1@1#2", "2"),
        ]
        assert bench.ledger.deliveries.envelopes("landing", [found[0].key, "other"]) == {found[0].key}


class _Crash(Exception):
    """The process died here, as far as the transaction is concerned."""


def _crash(*args: object, **kwargs: object) -> None:
    raise _Crash


class TestWholeTransactions:
    """All of a call, or nothing of it."""

    @pytest.mark.parametrize("seam", ["penstock.ledger.wakeups.request", "penstock.ledger.outbox.enqueue"])
    def test_an_arrival_is_recorded_whole_or_not_at_all(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, seam: str
    ) -> None:
        """When the wake-up or the event cannot be written, neither object nor file mark nor anything else is."""
        before = bench.everything()
        with monkeypatch.context() as patched:
            patched.setattr(seam, _crash)
            with pytest.raises(_Crash):
                bench.ledger.arrivals.record([Seen(stat=stat("sales/a"), dataset=SALES, mark=MARK)], Via.FOLDER)
            with pytest.raises(_Crash):
                deliver(bench, delivery("1"))
        assert bench.everything() == before
        assert bench.arrive("sales/a") == 1

    def test_two_writers_at_once_both_succeed(self, bench: Bench) -> None:
        """Two ledgers that write at the same moment wait for one another; nothing is refused, nothing is lost."""
        second = bench.open()

        def record(ledger: Ledger, side: str) -> int:
            one = [Seen(stat=stat(f"sales/{side}{n}"), dataset=SALES) for n in range(25)]
            return sum(ledger.arrivals.record([seen], Via.BUCKET) for seen in one)

        with ThreadPoolExecutor(4) as pool:
            sides = [bench.ledger, second, bench.ledger, second]
            assert list(pool.map(record, sides, "abcd")) == [25] * 4
        second.close()
        assert len(bench.rows()) == 100
        assert bench.woken() == ["sales"]

    def test_a_database_that_stays_locked_is_a_transient_error(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer that cannot get its turn says LedgerUnavailable; readers are not held up; then all goes on."""
        monkeypatch.setattr(database, "_BUSY_SECONDS", 0)
        second = bench.open()
        with bench.ledger.database.write():
            with pytest.raises(LedgerUnavailable):
                second.arrivals.record([Seen(stat=stat("sales/a"), dataset=SALES)], Via.BUCKET)
            assert second.arrivals.latest("landing", ["sales/a"]) == {}
            second.check()
        assert second.arrivals.record([Seen(stat=stat("sales/a"), dataset=SALES)], Via.BUCKET) == 1
        second.close()

    def test_a_ledger_that_cannot_be_opened_is_unavailable(self, tmp_path: Path) -> None:
        """A folder in the database's place is LedgerUnavailable, not an error of a library."""
        (tmp_path / "ledger.db").mkdir()
        with pytest.raises(LedgerUnavailable):
            Ledger(f"sqlite:///{tmp_path}/ledger.db", project=PROJECT).check()

    @pytest.mark.parametrize("seam", ["wakeups.request", "outbox.enqueue_all", "settling.tell"])
    def test_kill_9_in_a_transaction_leaves_the_ledger_whole(self, bench: Bench, tmp_path: Path, seam: str) -> None:
        """A process killed in the middle of a writing transaction leaves nothing of it, and no lock behind."""
        bench.arrive("sales/first")
        lease = bench.take()
        claimed = bench.claim(lease)
        before = bench.everything()
        child = subprocess.Popen(
            [sys.executable, "-c", _VICTIM, bench.url, seam, str(tmp_path / "inside")], stdin=subprocess.PIPE
        )
        try:
            wait_for(
                lambda: (tmp_path / "inside").exists() or child.poll() is not None, seconds=30, what="the child writes"
            )
            assert child.poll() is None
        finally:
            child.kill()
            child.communicate(timeout=60)
        assert bench.everything() == before
        if bench.ledger.database.is_sqlite:
            with bench.ledger.database.read() as connection:
                assert connection.execute(text("PRAGMA integrity_check")).scalars().all() == ["ok"]
        assert bench.arrive("sales/victim") == 1
        bench.settle(lease, *claimed)
        assert bench.states() == [("sales/first", 1, "loaded"), ("sales/victim", 1, "pending")]


# Holds the write open at the seam after its first statements, and tells so by making a file.
_VICTIM = """
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from penstock.declarations import Dataset
from penstock.ledger import Ledger
from penstock.ledger.arrivals import Seen
from penstock.model import Lease, Outcome, Stat, State, Via

url, seam, inside = sys.argv[1:]
now = datetime(2026, 3, 1, 12, tzinfo=UTC)
ledger = Ledger(url, project="p", clock=lambda: now)
lease = Lease(dataset="sales", token=1, holder="one", expires_at=now)
room, name = seam.split(".")


def wait(*args, **kwargs):
    Path(inside).touch()
    sys.stdin.read()


setattr(import_module("penstock.ledger." + room), name, wait)
if room == "settling":
    from penstock.model import ObjectRef

    ref = ObjectRef(id=1, dataset="sales", bucket="landing", key="sales/first", generation=1, etag="a", size=10)
    ledger.work.settle(lease, [Outcome(ref=ref, state=State.LOADED, rows=1)], run="r")
else:
    stat = Stat(bucket="landing", key="sales/victim", etag="a", size=1, modified=now)
    ledger.arrivals.record([Seen(stat=stat, dataset=Dataset(name="sales"))], Via.BUCKET)
"""


class TestOutbox:
    """Events until they are sent."""

    def test_rows_leave_only_when_sent(self, bench: Bench) -> None:
        """Reading the outbox takes nothing out; what was sent leaves, and nothing else, oldest first."""
        for n in range(3):
            bench.arrive(f"sales/{n}")
        first = bench.ledger.outbox.unsent(2)
        assert first == bench.ledger.outbox.unsent(2)
        assert [event.payload["keys"] for event in first] == [["sales/0"], ["sales/1"]]
        bench.ledger.outbox.sent([first[0].row])
        assert [event.payload["keys"] for event in bench.ledger.outbox.unsent(9)] == [["sales/1"], ["sales/2"]]
        bench.ledger.outbox.sent([])
        assert bench.ledger.outbox.count() == 2

    def test_an_event_survives_as_it_was(self, bench: Bench) -> None:
        """Name, resource, moment and id come out as they went in, and ids differ between events."""
        bench.arrive("sales/ä\u2028", "x")
        bench.clock.forward(0.000001)
        bench.arrive("sales/ä\u2028", "y")
        one, two = bench.ledger.outbox.unsent(9)
        assert one.resource == events.dataset_resource(PROJECT, "sales")
        assert one.occurred_at == START
        assert one.payload["keys"] == ["sales/ä\u2028"]
        assert one.id != two.id


class TestWakeUps:
    """When a run is asked for, and when not."""

    def test_at_most_one_for_a_dataset(self, bench: Bench) -> None:
        """However much arrives, a dataset has one outstanding wake-up, and its own number each time."""
        for n in range(3):
            bench.arrive(f"sales/{n}")
            bench.arrive(f"others/{n}", dataset=OTHERS)
            bench.ledger.wakeups.find()
        assert bench.woken() == ["sales", "others"]
        numbers = [wakeup.id for wakeup in bench.ledger.wakeups.outstanding()]
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        bench.ledger.work.finish(lease)
        bench.arrive("sales/9")
        assert bench.ledger.wakeups.outstanding()[-1].id > max(numbers)

    def test_none_while_a_live_lease_exists(self, bench: Bench) -> None:
        """Taking the lease answers the wake-up, and neither an arrival nor `find` makes one while it lives."""
        bench.arrive("sales/1")
        lease = bench.take()
        assert bench.woken() == []
        bench.arrive("sales/2")
        assert bench.ledger.wakeups.find() == 0
        assert bench.woken() == []
        bench.settle(lease, *bench.claim(lease))
        assert bench.ledger.work.finish(lease)
        assert bench.ledger.wakeups.find() == 0

    def test_find_makes_one_when_a_lease_expired(self, bench: Bench) -> None:
        """What a dead holder had claimed is work again at the moment its lease expires, not before."""
        bench.arrive("sales/1")
        bench.claim(bench.take())
        bench.clock.forward(29.999)
        assert bench.ledger.wakeups.find() == 0
        bench.clock.forward(0.001)
        assert bench.ledger.wakeups.find() == 1
        assert bench.woken() == ["sales"]
        assert bench.ledger.wakeups.find() == 0

    def test_a_holder_that_is_late_takes_its_wakeup_back(self, bench: Bench) -> None:
        """A lease renewed after it was overdue has no wake-up left, which no run could answer."""
        bench.arrive("sales/1")
        lease = bench.take()
        bench.clock.forward(31)
        assert bench.ledger.wakeups.find() == 1
        lease = bench.ledger.work.renew(lease, ttl=lease.expires_at - START)
        assert bench.woken() == []
        assert bench.ledger.wakeups.find() == 0

    def test_none_while_the_dataset_is_held(self, bench: Bench) -> None:
        """During a back-off an arrival wakes nobody; when it is over `find` does."""
        bench.arrive("sales/1")
        lease = bench.take()
        refs = bench.claim(lease)
        bench.ledger.work.give_back(lease, refs, run="r1", failed=refs[0], reason="the store is away")
        assert bench.ledger.work.finish(lease)
        bench.arrive("sales/2")
        assert bench.ledger.wakeups.find() == 0
        assert bench.woken() == []
        bench.clock.forward(1)
        assert bench.ledger.wakeups.find() == 1
        assert bench.woken() == ["sales"]

    def test_due_ones_are_taken_once_and_come_again(self, bench: Bench) -> None:
        """Taking counts an attempt and puts the next one off; an attempt that was not sent does not count."""
        ups = bench.ledger.wakeups
        again = timedelta(seconds=15)
        bench.arrive("sales/1")
        (first,) = ups.take_due(again_after=again)
        assert (first.dataset, first.attempt) == ("sales", 1)
        assert ups.take_due(again_after=again) == []
        bench.clock.forward(15)
        (second,) = ups.take_due(again_after=again)
        assert (second.id, second.attempt) == (first.id, 2)
        ups.not_sent(first, again_after=again)
        assert ups.outstanding()[0].attempt == 2
        ups.not_sent(second, again_after=again / 15)
        bench.clock.forward(1)
        (third,) = ups.take_due(again_after=again)
        assert third.attempt == 2
        ups.explain(third, "its automation is paused")
        assert ups.outstanding()[0].note == "its automation is paused"

    def test_request_is_part_of_the_callers_transaction(self, bench: Bench) -> None:
        """A wake-up asked for in a transaction that fails was never asked for."""

        def ask_and_die() -> None:
            with bench.ledger.database.write() as connection:
                wakeups.request(connection, "sales", START)
                raise _Crash

        with pytest.raises(_Crash):
            ask_and_die()
        assert bench.woken() == []


def test_standings_tell_how_a_dataset_stands(bench: Bench) -> None:
    """`status` sees counts by state, rows, the oldest waiting object, the holder while it lives, and a back-off."""
    bench.arrive("sales/1")
    bench.clock.forward(5)
    bench.arrive("sales/2")
    bench.arrive("stray/1", dataset=None)
    lease = bench.take()
    refs = bench.claim(lease, objects=1)
    bench.settle(lease, *refs)
    stray, sales = bench.ledger.facts.standings()
    assert (stray.dataset, stray.counts) == ("", {"quarantined": 1})
    assert (sales.counts, sales.rows, sales.rejected) == ({"loaded": 1, "pending": 1}, 2, 1)
    assert (sales.oldest_pending, sales.holder, sales.hold_until) == (bench.clock.now, "one", None)
    bench.clock.forward(31)
    assert bench.ledger.facts.standings()[1].holder is None


def test_a_story_is_found_by_every_name(bench: Bench) -> None:
    """`why` takes a key, a bucket and key, an object's name with its generation, and a delivery's id."""
    bench.arrive("sales/a@b.csv", "a")
    bench.arrive("sales/a@b.csv", "b")
    deliver(bench, delivery("d-1"))
    for name in ("sales/a@b.csv", "landing/sales/a@b.csv", "landing/sales/a@b.csv@2", "sales/a@b.csv@1"):
        assert {story.key for story in bench.ledger.facts.stories(name)} == {"sales/a@b.csv"}, name
    assert [story.delivery for story in bench.ledger.facts.stories("d-1")] == ["d-1"]
    assert bench.ledger.facts.stories("sales/nothing") == []


class TestLateHints:
    """Hints overtake one another, and people try again."""

    def test_a_late_hint_of_a_version_does_not_append_it_again(self, bench: Bench) -> None:
        """With append, a stat of version 1 that is recorded after version 2 does not become a third generation."""
        dataset = declared("sales", on_overwrite="append")
        assert bench.arrive("sales/a", "e1", dataset=dataset, version="v1") == 1
        assert bench.arrive("sales/a", "e2", dataset=dataset, version="v2") == 1
        assert bench.arrive("sales/a", "e1", dataset=dataset, version="v1") == 0
        assert bench.arrive("sales/a", "e1", dataset=dataset, version="v3") == 1

    def test_hints_in_a_wrong_order_heal(self, bench: Bench) -> None:
        """With replace, the next stat after hints that overtook one another makes the right one the newest."""
        bench.arrive("sales/a", "e2", version="v2")
        bench.arrive("sales/a", "e1", version="v1")
        assert bench.arrive("sales/a", "e2", version="v2") == 1
        assert bench.states()[-1] == ("sales/a", 3, "pending")

    @pytest.mark.parametrize("how", ["dropped again", "put again"])
    def test_the_same_bytes_again_are_another_chance(self, bench: Bench, how: str) -> None:
        """What is in quarantine is tried again when somebody drops the file or PUTs the object anew, not by a hint."""
        first = stat("sales/a", "e1", version="v1")
        bench.ledger.arrivals.record([Seen(stat=first, dataset=SALES)], Via.BUCKET)
        lease = bench.take()
        (ref,) = bench.claim(lease)
        bench.ledger.work.settle(lease, [Outcome(ref=ref, state=State.QUARANTINED, reason="bad")], run="r")
        assert bench.ledger.arrivals.record([Seen(stat=first, dataset=SALES)], Via.SWEEP) == 0
        if how == "dropped again":
            mark = FileMark(path="sales/a", inode=1, size=10, mtime_ns=2, etag="e1")
            assert bench.ledger.arrivals.record([Seen(stat=first, dataset=SALES, mark=mark)], Via.FOLDER) == 1
        else:
            again = stat("sales/a", "e1", version="v2")
            assert bench.ledger.arrivals.record([Seen(stat=again, dataset=SALES)], Via.BUCKET) == 1
        assert [state for _, _, state in bench.states()] == ["superseded", "pending"]
