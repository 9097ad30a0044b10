"""Deliveries of every ledger: their request and events, how they are listed and found, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, func, insert, inspect, select

from penstock import events
from penstock.ledger import Ledger, outbox
from penstock.ledger.database import HEAD
from penstock.ledger.rejections import MOST_OF_SOURCE, Rejected
from penstock.ledger.tables import archive, objects, rejections
from penstock.model import Delivery, FurtherEvent, State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, PROJECT, START, Bench, delivery, stat
from tests.real_postgres import shared_postgres

CREATED = FurtherEvent(name="shop.order.created", resource="shop.order.7", payload={"total": 3})
PAID = FurtherEvent(name="shop.order.paid", resource="shop.order.7", payload={})


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def record(bench: Bench, *found: Delivery, key: str = "e1", announce: tuple[str, ...] = ()) -> set[int]:
    entries = dict(enumerate(found, start=1))
    return bench.ledger.deliveries.record(
        "landing", key, stat(key), entries, Via.WEBHOOK, announce_each=frozenset(announce)
    )


def told(bench: Bench) -> list[str]:
    """The names of the events of deliveries that wait."""
    return [one.name for one in bench.ledger.outbox.unsent(100) if one.name != events.OBJECT_ARRIVED]


def ids(found: Any) -> list[str]:
    return [one.delivery for one in found]


class TestRequests:
    """The HTTP request that brought a delivery."""

    def test_a_request_stays_with_its_delivery(self, bench: Bench) -> None:
        """The row, `why` and the archive name the request, and `why` finds by it what nothing else is called."""
        record(bench, replace(delivery("one"), request="r-1"), replace(delivery("two"), request="r-1"), delivery("old"))
        assert [row.request for row in bench.rows()] == ["r-1", "r-1", None]
        assert [story.delivery for story in bench.ledger.facts.stories("r-1")] == ["two", "one"]
        assert bench.ledger.facts.stories("one")[0].request == "r-1"
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        assert bench.ledger.archive.retire(bench.ledger.archive.of_keys([("landing", "e1")])) == 3
        assert [story.request for story in bench.ledger.facts.stories("r-1")] == ["r-1", "r-1"]

    def test_a_request_of_any_length_can_be_recorded(self, bench: Bench) -> None:
        """An envelope that somebody wrote into the bucket may name anything; no index refuses its rows for it."""
        assert record(bench, replace(delivery("one"), request="\0é" * 50_000)) == set()
        assert len(bench.rows()[0].request) == 200


class TestEvents:
    """The events of a delivery are in the transaction of its row."""

    def test_what_is_new_brings_its_events(self, bench: Bench) -> None:
        """Accepted where the source asks for it, and the further ones, with what they are about."""
        one = replace(delivery("one", body=b"12345"), request="r-1", events=(CREATED, PAID))
        record(bench, one, delivery("two", source="mill"), announce=("shop",))
        found = [event for event in bench.ledger.outbox.unsent(100) if event.name != events.OBJECT_ARRIVED]
        assert [event.name for event in found] == [events.DELIVERY_ACCEPTED, CREATED.name, PAID.name]
        assert found[0].payload == {"delivery": "one", "dataset": "sales", "bytes": 5, "request": "r-1"}
        assert found[0].resource == events.source_resource(PROJECT, "shop")
        assert (found[1].resource, found[1].payload) == ({"prefect.resource.id": "shop.order.7"}, {"total": 3})
        related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in found[1].related}
        assert related == {"dataset": f"penstock.{PROJECT}.dataset.sales", "source": f"penstock.{PROJECT}.source.shop"}
        by_role = {one["prefect.resource.role"]: one.get("penstock.request") for one in found[1].related}
        assert by_role == {"dataset": None, "source": "r-1"}
        assert found[1].occurred_at == one.received_at
        assert len({event.id for event in found}) == 3

    def test_a_duplicate_brings_none(self, bench: Bench) -> None:
        """Neither in the same envelope, nor in another, nor once its events were sent, nor once it is archived."""
        one = replace(delivery("one"), events=(CREATED,))
        assert record(bench, one, one, announce=("shop",)) == {2}
        bench.ledger.outbox.sent([event.row for event in bench.ledger.outbox.unsent(100)])
        assert record(bench, one, key="e2", announce=("shop",)) == {1}
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        assert bench.ledger.archive.retire(bench.ledger.archive.of_keys([("landing", "e1")])) == 1
        assert record(bench, one, key="e3", announce=("shop",)) == {1}
        assert set(told(bench)) == {events.DATASET_LOADED}

    def test_the_same_event_of_two_deliveries_is_two(self, bench: Bench) -> None:
        """An event's id comes from its delivery and its place, so two alike of one delivery are two as well."""
        record(bench, replace(delivery("one"), events=(PAID, PAID)), replace(delivery("two"), events=(PAID,)))
        assert told(bench) == [PAID.name] * 3

    def test_events_that_cannot_be_queued_leave_no_delivery(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the process dies between the two there is neither row nor event, and the sender comes again."""
        with monkeypatch.context() as patched:
            patched.setattr(outbox, "enqueue_all", _crash_at(CREATED.name))
            with pytest.raises(_Crash):
                record(bench, replace(delivery("one"), events=(CREATED,)))
        assert bench.rows() == []
        assert record(bench, replace(delivery("one"), events=(CREATED,))) == set()
        assert told(bench) == [CREATED.name]

    @pytest.mark.parametrize("name", ["prefect.flow-run.Completed", "prefect-cloud.x", "penstock.dataset.loaded"])
    def test_nobody_sends_events_in_our_name(self, bench: Bench, name: str) -> None:
        """An envelope that names an event of penstock's or Prefect's own is recorded, and the event is not sent."""
        forged = FurtherEvent(name=name, resource="x", payload={})
        assert record(bench, replace(delivery("one"), events=(forged, PAID))) == set()
        assert told(bench) == [PAID.name]

    def test_many_are_a_statement_each(self, bench: Bench) -> None:
        """A group of hundreds sends as many statements as a group of two."""
        counts = []
        for size in (2, 300):
            sent: list[str] = []

            def note(_: Any, __: Any, statement: str, *rest: Any, into: list[str] = sent) -> None:
                into.append(statement)

            engine = bench.ledger.database.engine
            event.listen(engine, "before_cursor_execute", note)
            try:
                found = [replace(delivery(f"{size}-{n}"), request=f"r{n}", events=(CREATED, PAID)) for n in range(size)]
                record(bench, *found, key=f"e{size}", announce=("shop",))
            finally:
                event.remove(engine, "before_cursor_execute", note)
            counts.append(len(sent))
        assert counts[0] == counts[1]


class TestLists:
    """Deliveries, the newest first."""

    def fill(self, bench: Bench) -> None:
        """Six deliveries of two sources, two at each moment, and a file."""
        for number in range(6):
            came = delivery(f"d{number}", source="shop" if number % 2 else "mill", dataset="sales")
            at = bench.clock.now = START + timedelta(minutes=number // 2)
            record(bench, replace(came, received_at=at, request=f"r{number}"), key=f"e{number}")
        bench.arrive("sales/file")

    def test_the_newest_come_first(self, bench: Bench) -> None:
        """By the time they came and then their number; files are none of them. Recorded later is later."""
        self.fill(bench)
        assert ids(bench.ledger.delivered.page(limit=10)) == ["d5", "d4", "d3", "d2", "d1", "d0"]
        late = replace(delivery("late"), received_at=START - timedelta(hours=1))
        record(bench, late, key="late")
        assert ids(bench.ledger.delivered.page(limit=10))[0] == "late"

    def test_they_are_narrowed(self, bench: Bench) -> None:
        """By source, dataset, state and moment, together too."""
        self.fill(bench)
        page = bench.ledger.delivered.page
        assert ids(page(limit=9, source="shop")) == ["d5", "d3", "d1"]
        assert ids(page(limit=9, dataset="other")) == []
        assert ids(page(limit=9, since=START + timedelta(minutes=1), source="mill")) == ["d4", "d2"]
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease, objects=2))
        assert ids(page(limit=9, state=State.LOADED)) == ["d1", "d0"]
        assert ids(page(limit=9, state=State.LOADED, source="shop", dataset="sales")) == ["d1"]
        assert ids(page(limit=9, state=State.CLAIMED)) == []

    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_pages_miss_none_and_repeat_none(self, bench: Bench, size: int) -> None:
        """Page after page each is there once, those of one moment and archived ones too."""
        self.fill(bench)
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        for key in ("e2", "e3"):
            bench.ledger.archive.retire(bench.ledger.archive.of_keys([("landing", key)]))
        assert ids(bench.ledger.delivered.page(limit=10)) == ["d5", "d4", "d1", "d0"]
        seen: list[str] = []
        before = None
        while page := bench.ledger.delivered.page(limit=size, before=before, archived=True):
            seen += ids(page)
            before = page[-1].number
        assert seen == ["d5", "d4", "d3", "d2", "d1", "d0"]

    def test_a_page_before_nothing(self, bench: Bench) -> None:
        """A number that no delivery has is an error, not an empty page."""
        bench.arrive("sales/file")
        for number in (1, 99):
            with pytest.raises(LookupError):
                bench.ledger.delivered.page(limit=1, before=number)

    def test_they_are_found(self, bench: Bench) -> None:
        """By id, by source and id, by full name and by request; an id of several sources finds each."""
        record(bench, replace(delivery("42"), request="r-1"), replace(delivery("42", source="mill"), request="r-2"))
        find = bench.ledger.delivered.find
        assert [one.source for one in find("42")] == ["mill", "shop"]
        assert [one.source for one in find("42", source="shop")] == ["shop"]
        assert [one.source for one in find("mill:42")] == ["mill"]
        assert [one.source for one in find("r-1")] == ["shop"]
        (shop,) = find("shop:42")
        assert shop.name == "landing/e1@1#1"
        assert find(shop.name) == [shop]
        assert [one.source for one in find("landing/e1@1")] == ["mill", "shop"]
        assert find("nothing") == []
        bench.arrive("sales/file")
        assert find("sales/file") == []
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        bench.ledger.archive.retire(bench.ledger.archive.of_keys([("landing", "e1")]))
        (gone,) = find("shop:42")
        assert (gone.archived_at, gone.request, gone.name) == (START, "r-1", shop.name)
        assert find("r-1") == [gone]

    def test_no_list_reads_all_that_ever_came(self, bench: Bench) -> None:
        """Each list goes along the index of arrival, and ends where its limit does, also between 20,000 deliveries."""
        with bench.ledger.database.write() as connection:
            rows = [
                {
                    "id": number,
                    "dataset": "sales",
                    "bucket": "landing",
                    "key": f"e{number}",
                    "generation": 1,
                    "entry": 1,
                    "etag": "a",
                    "size": 2,
                    "via": "webhook",
                    "source": "shop" if number % 10 else "mill",
                    "delivery": f"d{number}",
                    "state": "loaded" if number % 1000 else "quarantined",
                    "reason": "bad",
                    "rows": 1,
                    "arrived_at": START + timedelta(seconds=number),
                    "changed_at": START,
                    "request": f"r{number}",
                }
                for number in range(1, 20_001)
            ]
            connection.execute(insert(objects), rows)
            connection.execute(
                insert(archive),
                [{**row, "id": row["id"] + 100_000, "archived_at": START} for row in rows],  # type: ignore[operator]
            )
        if not bench.ledger.database.is_sqlite:
            with bench.ledger.database.engine.connect() as connection:
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
        page = bench.ledger.delivered.page
        moment = START + timedelta(seconds=19_000)
        for asked in (
            {},
            {"archived": True},
            {"before": 19_000},
            {"since": moment},
            {"source": "shop", "dataset": "sales"},
            {"state": State.LOADED, "dataset": "sales", "source": "shop"},
        ):
            plans = list(self.plans(bench, lambda asked=asked: page(limit=20, **asked)))
            assert plans
            for plan in plans:
                assert re.search(
                    r"deliveries_by_arrival|archived_arrival|archived_source|objects_pkey|PRIMARY KEY", plan
                ), plan
                assert not re.search(r"(?m)Seq Scan|TEMP B-TREE FOR ORDER|SCAN \w+$", plan), plan
        (plan,) = self.plans(bench, lambda: bench.ledger.delivered.find("r77"))[2:3]
        assert "by_request" in plan

    def plans(self, bench: Bench, ask: Any) -> list[str]:
        """How the database answers each question that `ask` has."""
        sent: list[tuple[str, Any]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *rest: Any) -> None:
            if statement.startswith("SELECT"):
                sent.append((statement, parameters))

        engine = bench.ledger.database.engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            ask()
        finally:
            event.remove(engine, "before_cursor_execute", note)
        word = "EXPLAIN QUERY PLAN" if bench.ledger.database.is_sqlite else "EXPLAIN"
        with engine.connect() as connection:
            return [
                "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{word} {statement}", parameters))
                for statement, parameters in sent
                if "advisory" not in statement
            ]


def refused(number: int = 0, *, source: str = "shop", body: bytes = b"x", request: str = "r-1") -> Rejected:
    return Rejected(
        source=source,
        at=START,
        kind="unverified",
        detail="The request is not signed as this source says.",
        address="127.0.0.1",
        request=request,
        content_type="application/json",
        headers=(("user-agent", f"test\0{number}"),),
        body=body,
        bytes=len(body),
    )


class TestRejections:
    """What was refused and kept."""

    def test_what_is_kept_comes_back_whole(self, bench: Bench) -> None:
        """Each field is as it was, the body with every byte; a list is without bodies, the newest first."""
        kept = [refused(n, body=bytes(range(256)), request=f"r-{n}") for n in range(3)]
        bench.ledger.rejections.keep([(one, START + timedelta(days=1)) for one in kept])
        page = bench.ledger.rejections.page(limit=2)
        assert [one.rejected for one in page] == [replace(kept[2], body=b""), replace(kept[1], body=b"")]
        found = bench.ledger.rejections.get(page[0].number)
        assert found is not None
        assert (found.rejected, found.expires_at) == (kept[2], START + timedelta(days=1))
        assert [one.rejected.request for one in bench.ledger.rejections.of_request("r-0")] == ["r-0"]
        (last,) = bench.ledger.rejections.page(limit=2, before=page[1].number)
        assert last.rejected.request == "r-0"
        assert bench.ledger.rejections.page(limit=2, source="mill") == []
        assert bench.ledger.rejections.page(limit=2, since=START + timedelta(seconds=1)) == []

    def test_what_is_over_is_neither_shown_nor_stays(self, bench: Bench) -> None:
        """From its moment on nobody sees it, and `expire` removes it, and nothing else, in bounded steps."""
        soon, later = START + timedelta(days=1), START + timedelta(days=2)
        bench.ledger.rejections.keep([(refused(), soon)] * 250)
        bench.ledger.rejections.keep([(refused(source="mill"), later)])
        assert bench.ledger.rejections.expire() == 0
        bench.clock.forward(86_400 + 1)
        (left,) = bench.ledger.rejections.page(limit=500)
        assert bench.ledger.rejections.get(left.number - 1) is None
        assert len(bench.ledger.rejections.of_request("r-1")) == 1
        assert [bench.ledger.rejections.expire() for _ in range(3)] == [200, 50, 0]
        with bench.ledger.database.read() as connection:
            assert connection.execute(select(rejections.c.source)).scalars().all() == ["mill"]

    def test_a_flood_pushes_out_the_oldest_of_its_source_only(self, bench: Bench) -> None:
        """However many come, a source has the newest so many, and another source loses nothing."""
        end = START + timedelta(days=1)
        bench.ledger.rejections.keep([(refused(source="mill"), end)])
        for start in range(0, MOST_OF_SOURCE + 30, 103):
            bench.ledger.rejections.keep([(refused(n, request=f"r-{n}"), end) for n in range(start, start + 103)])
        with bench.ledger.database.read() as connection:
            count = select(rejections.c.source, func.count()).group_by(rejections.c.source)
            assert dict(connection.execute(count).tuples().all()) == {"mill": 1, "shop": MOST_OF_SOURCE}
        newest = bench.ledger.rejections.page(limit=1, source="shop")
        assert newest[0].rejected.request == "r-1029"

    def test_a_flood_of_rubbish_pushes_out_nothing_of_a_verified_sender(self, bench: Bench) -> None:
        """What was not verified is bounded apart from what a verified sender did wrong, and the other way round."""
        end = START + timedelta(days=1)
        broken = replace(refused(), kind="unparseable")
        bench.ledger.rejections.keep([(broken, end)] * 3)
        for flood, most in ((refused(), 3), (broken, MOST_OF_SOURCE)):
            for _ in range(11):
                bench.ledger.rejections.keep([(flood, end)] * 100)
            with bench.ledger.database.read() as connection:
                count = select(rejections.c.kind, func.count()).group_by(rejections.c.kind)
                found = dict(connection.execute(count).tuples().all())
            assert found == {"unverified": MOST_OF_SOURCE, "unparseable": most}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ledger_with_deliveries_is_migrated(backend: str, tmp_path: Path) -> None:
    """Rows of 0003 in use and archived are there afterwards without a request, and are listed and found."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/ledger.db"
        if backend == "postgres":
            url = shared_postgres().url(stack.enter_context(shared_postgres().database()), scheme="postgresql+psycopg")
        ledger = Ledger(url, project=PROJECT)
        stack.callback(ledger.close)
        config = Config()
        config.set_main_option("script_location", "penstock.ledger:migrations")
        common = (
            "id, dataset, bucket, key, generation, entry, etag, size, via, source, delivery, state, arrived_at, "
            "changed_at"
        )
        values = "{0}, 'sales', 'landing', 'e{0}', 1, 1, 'a', 2, 'webhook', 'shop', 'd{0}', 'pending', {0}, {0}"
        with ledger.database.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0003")
            for number in range(1, 101):
                connection.exec_driver_sql(f"INSERT INTO objects ({common}) VALUES ({values.format(number)})")
            connection.exec_driver_sql(f"INSERT INTO archive ({common}, archived_at) VALUES ({values.format(200)}, 9)")
            if backend == "postgres":
                connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('objects', 'id'), 200)")
            before = {
                table: connection.exec_driver_sql(f"SELECT {common} FROM {table} ORDER BY id").all()
                for table in ("objects", "archive")
            }
        assert ledger.migrate(lock_folder=tmp_path) == ("0003", HEAD)
        ledger.check()
        with ledger.database.read() as connection:
            for table in (objects, archive):
                rows = connection.exec_driver_sql(f"SELECT {common} FROM {table.name} ORDER BY id").all()
                assert rows == before[table.name]
                made = {
                    (index["name"], *index["column_names"]) for index in inspect(connection).get_indexes(table.name)
                }
                assert made == {(index.name, *(column.name for column in index.columns)) for index in table.indexes}
        newest = ledger.delivered.page(limit=2, archived=True)
        assert [(one.delivery, one.request) for one in newest] == [("d200", None), ("d100", None)]
        found = Delivery(
            id="new",
            source="shop",
            dataset="sales",
            received_at=START,
            content_type="",
            headers={},
            body=b"{}",
            request="r-1",
        )
        again = replace(found, id="d7")
        assert ledger.deliveries.record("landing", "n", stat("n"), {1: found, 2: again}, Via.WEBHOOK) == {2}
        assert ids(ledger.delivered.find("r-1")) == ["new"]


class _Crash(Exception):
    """The process died here, as far as the transaction is concerned."""


def _crash_at(name: str) -> Callable[..., None]:
    real = outbox.enqueue_all

    def enqueue_all(connection: Connection, found: Sequence[dict[str, Any]]) -> None:
        real(connection, found)
        if any(one["name"] == name for one in found):
            raise _Crash

    return enqueue_all
