"""What the ledger's questions cost as it grows: none of the hot ones reads a whole table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert

from penstock.declarations import Backfill
from penstock.ledger.replay import Selection
from penstock.ledger.tables import objects
from penstock.model import Outcome, State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, SALES, START, TTL, Bench, delivery, stat

ENVELOPE = "_penstock/deliveries/sales/1"
LARGE = {"objects", "history", "archive", "files"}


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


@contextmanager
def recorded(bench: Bench) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is sent meanwhile, with its parameters."""
    engine = bench.ledger.database.engine
    sent: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        if re.match(r"(?i)\s*(SELECT|UPDATE|DELETE|INSERT|WITH)\b", statement):
            sent.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def scans(bench: Bench, statement: str, parameters: Any) -> list[str]:
    """Where the plan of a statement reads all of a large table, or of an index of it."""
    with bench.ledger.database.engine.connect() as connection:
        if bench.ledger.database.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            # A search by the mere beginning of the ids is a scan by another name.
            wrong = re.compile(rf"SCAN ({'|'.join(LARGE)}|objects_1)\b|\(rowid[<>]")
            return [row[3] for row in rows if wrong.search(row[3])]
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_sort = on")
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        found = plan if isinstance(plan, list) else json.loads(plan)
        return list(_whole(found[0]["Plan"]))


def reads(bench: Bench, statement: str, parameters: Any) -> int:
    """How many steps SQLite takes for a statement, or rows PostgreSQL looks at; what it changes is rolled back."""
    with bench.ledger.database.engine.connect() as connection:
        if not bench.ledger.database.is_sqlite:
            plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
            found = plan if isinstance(plan, list) else json.loads(plan)
            return max(_looked_at(found[0]["Plan"]))
        count = 0

        def step() -> None:
            nonlocal count
            count += 100

        raw = connection.connection.driver_connection
        assert raw is not None
        raw.set_progress_handler(step, 100)
        try:
            connection.exec_driver_sql(statement, parameters).close()
        finally:
            raw.set_progress_handler(None, 0)
        return count


def _looked_at(node: dict[str, Any]) -> Iterator[int]:
    yield node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    for child in node.get("Plans", ()):
        yield from _looked_at(child)


def _whole(node: dict[str, Any]) -> Iterator[str]:
    reads = node["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"}
    if reads and node.get("Relation Name", "objects") in LARGE:
        condition = node.get("Index Cond", "")
        if not condition or re.fullmatch(r"\(id > '?\d+'?(::\w+)?\)", condition):
            yield f"{node['Node Type']} {node.get('Relation Name', node.get('Index Name'))} {condition}"
    for child in node.get("Plans", ()):
        yield from _whole(child)


def a_run(bench: Bench) -> None:
    lease = bench.take(holder="two")
    refs = bench.claim(lease)
    bench.ledger.work.renew(lease, ttl=TTL)
    bench.ledger.work.older(refs)
    outcomes = [
        Outcome(ref=ref, state=state, rows=1, reason="r") for ref, state in zip(refs, list(State)[3:7], strict=False)
    ]
    bench.ledger.work.settle(lease, outcomes, run="r", replaced=refs[:1])
    bench.ledger.work.give_back(lease, refs[4:], run="r", failed=refs[-1], reason="r")
    bench.clock.forward(60)
    bench.ledger.work.finish(lease)
    bench.ledger.work.abandon(lease, reason="r", run="r", blame=True)


def a_backfill(bench: Bench) -> None:
    with bench.ledger.database.write() as connection:
        connection.execute(
            objects.update().where(objects.c.id.in_([22, 24, 26, 28])).values(backlog=1, modified_at=START)
        )
    bench.arrive("sales/1", "b", version="b")
    for order in ("newest", "oldest"):
        for per_minute in (None, 8):
            backfill = Backfill(prefix="archive/", order=order, per_minute=per_minute)
            bench.clock.forward(60)
            lease = bench.take(holder=f"{order} {per_minute}")
            for _ in range(3):
                refs = bench.ledger.work.claim(lease, run="r", max_objects=8, max_bytes=1000, backfill=backfill)
                bench.settle(lease, *refs)
            if not bench.ledger.work.finish(lease):
                bench.ledger.work.abandon(lease, reason="r", run="r", blame=False)
            bench.arrive(f"sales/{order}/{per_minute}")
            bench.ledger.wakeups.find()


def a_relay(bench: Bench) -> None:
    bench.clock.forward(600)
    bench.ledger.wakeups.find()
    bench.ledger.wakeups.take_due(again_after=timedelta(seconds=5))
    bench.ledger.outbox.sent([row.row for row in bench.ledger.outbox.unsent(200)])


def a_sweep(bench: Bench) -> None:
    bench.ledger.arrivals.latest("landing", ["sales/1", "sales/2"])
    bench.ledger.deliveries.envelopes("landing", [ENVELOPE])
    bench.ledger.arrivals.adopt([SALES])
    bench.ledger.arrivals.file_marks(["sales/1"])
    bench.ledger.arrivals.refused_files(after="")


def arrivals(bench: Bench) -> None:
    bench.arrive("sales/new")
    bench.arrive("sales/1", "b", version="b")
    bench.ledger.deliveries.known("shop", ["one", "x"])
    bench.ledger.deliveries.record("landing", "e2", stat("e2"), {1: delivery("x")}, Via.WEBHOOK)


def people(bench: Bench) -> None:
    for text in ("sales/1", "landing/sales/1@1", "one", "shop:one", f"{ENVELOPE}#1", "nothing"):
        bench.ledger.facts.stories(text)
        bench.ledger.replay.plan(Selection(keys=(text,)), datasets=[SALES], force=True)
        bench.ledger.replay.replay(Selection(keys=(text,)), datasets=[SALES], force=True, by="me")
    bench.ledger.facts.recent(after=START + timedelta(days=9))
    bench.ledger.facts.by_state(State.QUARANTINED)
    bench.ledger.facts.by_state(State.QUARANTINED, dataset="sales")


def checks(bench: Bench) -> None:
    bench.ledger.checked.loaded_counts()
    refs = bench.ledger.checked.loaded("sales", after=1, limit=100)
    bench.ledger.checked.lost(refs, what="r")


def retention(bench: Bench) -> None:
    page = bench.ledger.archive.page("sales", State.LOADED, after=1, limit=500)
    bench.ledger.archive.retire(bench.ledger.archive.of_keys({name for _, name, _ in page}))
    bench.ledger.archive.forget("shop", "sales", before=START + timedelta(days=9))


@pytest.mark.parametrize(
    "work",
    [a_run, a_backfill, a_relay, a_sweep, arrivals, people, checks, retention],
    ids=lambda work: str(work.__name__),
)
def test_no_hot_question_reads_a_whole_table(bench: Bench, work: Callable[[Bench], None]) -> None:
    """Runs, relay, sensors, the webhook, `why` and retention find what they ask for by an index."""
    for number in range(30):
        bench.arrive(f"sales/{number}")
    bench.ledger.deliveries.record(
        "landing", ENVELOPE, stat(ENVELOPE), {1: delivery("one"), 2: delivery("two")}, Via.WEBHOOK
    )
    lease = bench.take()
    bench.settle(lease, *bench.claim(lease, objects=20))
    bench.ledger.work.abandon(lease, reason="r", run="r", blame=False)
    bench.clock.forward(3600)
    with recorded(bench) as sent:
        work(bench)
    assert sent
    found = {statement: plan for statement, parameters in sent if (plan := scans(bench, statement, parameters))}
    assert not found


@pytest.mark.parametrize(
    "backfill", [None, Backfill(prefix="a/"), Backfill(prefix="a/", per_minute=80)], ids=["none", "all", "slow"]
)
def test_old_ones_that_wait_are_not_read_through(bench: Bench, backfill: Backfill | None) -> None:
    """Of 10,000 old objects that wait, a run, the relay and an arrival look at no more than they take."""
    old = {"dataset": "sales", "bucket": "landing", "generation": 1, "entry": 0, "etag": "a", "size": 1, "via": "sweep"}
    old |= {"state": "pending", "arrived_at": START, "changed_at": START, "backlog": 1}
    rows = [{**old, "key": f"a/{n}", "modified_at": START - timedelta(hours=n * 7919 % 10_000)} for n in range(10_000)]
    with bench.ledger.database.write() as connection:
        connection.execute(insert(objects), rows)
    if not bench.ledger.database.is_sqlite:
        with bench.ledger.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE objects")
    with recorded(bench) as sent:
        bench.ledger.wakeups.find()
        lease = bench.take()
        for _ in range(2):
            refs = bench.ledger.work.claim(lease, run="r", max_objects=80, max_bytes=1000, backfill=backfill)
            bench.settle(lease, *refs)
        if not bench.ledger.work.finish(lease):
            bench.ledger.work.abandon(lease, reason="r", run="r", blame=False)
        bench.arrive("sales/new")
        bench.ledger.wakeups.find()
    asked = {
        statement: reads(bench, statement, parameters) for statement, parameters in sent if "INSERT" not in statement
    }
    assert not {statement: count for statement, count in asked.items() if count > 8000}


def test_an_idle_relay_only_reads(bench: Bench) -> None:
    """With nothing to send and nothing that waits, the relay's questions take no lock that a writer needs."""
    bench.arrive("sales/1")
    lease = bench.take()
    bench.settle(lease, *bench.claim(lease))
    assert bench.ledger.work.finish(lease)
    bench.ledger.outbox.sent([row.row for row in bench.ledger.outbox.unsent(200)])
    second = bench.open()
    with bench.ledger.database.write():
        assert second.wakeups.find() == 0
        assert second.wakeups.take_due(again_after=timedelta(seconds=5)) == []
        assert second.outbox.unsent(200) == []
    second.close()


@pytest.mark.parametrize("count", [50, 200])
def test_a_batch_takes_as_many_statements_whatever_its_size(bench: Bench, count: int) -> None:
    """Claiming, asking for what is older and settling send a statement for the batch, not one for each object."""
    for etag in "ab":
        for number in range(count):
            bench.arrive(f"sales/{number}", etag, version=etag, dataset=replace(SALES, on_overwrite="append"))
    lease = bench.take()
    with recorded(bench) as sent:
        refs = bench.claim(lease, objects=2 * count)
        older = bench.ledger.work.older(refs)
        replaced = [old for found in older.values() for old in found]
        outcomes = [Outcome(ref=ref, state=list(State)[3 + n % 4], rows=1, reason="r") for n, ref in enumerate(refs)]
        bench.ledger.work.settle(lease, outcomes, run="r", replaced=replaced)
    assert len(refs) == 2 * count
    assert len(sent) <= 30
