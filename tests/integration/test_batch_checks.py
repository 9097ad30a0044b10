"""Checks, control files, ways of writing and event times in a batch: real store, real ledger, real DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.checks import Check, matches, row_count
from penstock.declarations import Backfill, Dataset, Ready
from penstock.errors import DeclarationError, StoreUnavailable
from penstock.flows.render import as_markdown
from penstock.flows.report import EventTimes
from penstock.formats.control import LARGEST
from penstock.ledger.replay import Selection
from penstock.ledger.watermarks import Watermark
from penstock.model import Stat, State
from tests.integration.parts import parts_in
from tests.integration.test_batch import Works, csv_of, delivery, works_on
from tests.real_store import RealStore, real_store


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A dataset `sales` on a clock that stands still; tests declare it anew."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        yield works_on(parts)


def reason(works: Works, key: str) -> str:
    return works.parts.stories(key)[0].reason or ""


def history(works: Works, key: str) -> str:
    return works.parts.stories(key)[0].facts[-1].detail


def replay_rejected(works: Works) -> None:
    done = works.parts.ledger.replay.replay(
        Selection(dataset="sales", rejected=True), datasets=[works.dataset], force=False, by="a test"
    )
    assert (done.moved, done.refused) == (1, {})


class TestSeverities:
    """What becomes of rows and objects that fail."""

    def test_a_batch_counts_them(self, works: Works) -> None:
        """Rows that were warned of and passed over are in the report, of what was loaded only."""
        works.dataset = Dataset(
            name="sales",
            where="name <> 'n9'",
            checks={
                "small": Check("id < 3", "warn"),
                "never": Check("id <> 7", "object"),
                "many": Check("count(*) > 1", "warn", over="object"),
                "odd": "id <> 5",
            },
        )
        works.parts.arrive("sales/a.csv", csv_of(1, 3, 5, 9))
        works.parts.arrive("sales/b.csv", csv_of(4, 9))
        works.parts.arrive("sales/c.csv", csv_of(4, 7, 9))
        works.parts.arrive("sales/d.csv", csv_of(9))
        report = works.drain()
        assert report.outcomes == {"loaded": 2, "quarantined": 1, "empty": 1}
        assert (report.rows, report.rejected, report.filtered) == (3, 1, 3)
        assert report.warnings == {"small": 2, "many": 1}
        assert works.rows() == [1, 3, 4]
        assert reason(works, "sales/c.csv") == "check never: 1 row fails id <> 7, the first in line 3"
        assert report.told() == {"filtered": 3, "warnings": {"small": 2, "many": 1}}
        assert history(works, "sales/a.csv") == "2 rows, 1 rejected; 1 warned of by small; 1 passed over by where"
        assert history(works, "sales/b.csv").startswith(
            "1 rows, 0 rejected; 1 warned of by many; 1 warned of by small;"
        )
        markdown = as_markdown("sales", report, 0.1)
        assert "3 rows were passed over by `where`." in markdown
        assert "| small | 2 |" in markdown
        assert works.rows("column_name, check_name", "sales__rejected") == [(None, "odd")]

    def test_nothing_is_told_of_a_plain_run(self, works: Works) -> None:
        """Where none of it is declared, the report is as it was."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        assert works.drain().told() == {}

    def test_a_wrong_object_check_holds_the_run_up(self, works: Works) -> None:
        """The declaration is at fault, not the object, once its schema is known."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        works.drain()
        works.dataset = Dataset(name="sales", checks={"sum": Check("sum(nowhere) > 0", over="object")})
        works.parts.arrive("sales/b.csv", csv_of(2))
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        batch.fetch()
        with pytest.raises(DeclarationError, match="check sum"):
            batch.check()


class _Broken:
    """A store that does not find out whether there is a control file."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def stat(self, bucket: str, key: str) -> Stat:
        raise StoreUnavailable(f"no answer for {key}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class TestControlFiles:
    """The object beside an object that says what must be in it."""

    @pytest.fixture
    def works(self, works: Works) -> Works:
        """A dataset that asks for one."""
        works.dataset = Dataset(
            name="sales", ready=Ready(beside=".ctl"), checks={"complete": matches("count(*)", "rows")}
        )
        return works

    def test_it_decides(self, works: Works) -> None:
        """As many rows: loaded. Others, or no file, or no use of it: quarantine, with what to do."""
        for name, control in {
            "a": b'{"rows": 2}',
            "b": b"rows=3",
            "c": None,
            "d": b"count=2",
            "e": b" " * (LARGEST + 1),
        }.items():
            works.parts.arrive(f"sales/{name}.csv", csv_of(1, 2))
            if control is not None:
                works.parts.put(f"sales/{name}.csv.ctl", control)
        assert works.drain().outcomes == {"loaded": 1, "quarantined": 4}
        assert reason(works, "sales/b.csv") == ("check complete: count(*) is 2, and its control file says rows 3")
        assert reason(works, "sales/c.csv") == (
            "its control file sales/c.csv.ctl is not there; put it there and replay the object"
        )
        assert "has no 'rows', only count" in reason(works, "sales/d.csv")
        assert "has 1,000,001 bytes, and may have 1,000,000; mend it" in reason(works, "sales/e.csv")

    def test_an_object_without_bytes_has_one_too(self, works: Works) -> None:
        """One that was cut off to nothing is no empty one."""
        works.parts.arrive("sales/a.csv", b"")
        works.parts.put("sales/a.csv.ctl", b"2")
        works.parts.arrive("sales/b.csv", b"")
        works.parts.put("sales/b.csv.ctl", b"0")
        assert works.drain().outcomes == {"quarantined": 1, "empty": 1}
        assert reason(works, "sales/a.csv").startswith("it has 0 bytes; check complete: count(*) is 0")

    def test_a_delivery_has_none(self, works: Works) -> None:
        """It says so."""
        works.parts.landing.accept([delivery(1, b'{"id": 1}')])
        assert works.drain().outcomes == {"quarantined": 1}
        assert "a webhook's delivery has none; take the check away" in (
            works.parts.ledger.facts.stories("d1")[0].reason or ""
        )

    def test_a_store_that_does_not_answer_holds_the_object(self, works: Works) -> None:
        """It is not the object's fault: it stays pending."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease), store=_Broken(works.parts.store))
        assert batch.fetch() == 0
        assert batch.postponed is not None
        assert "no answer for sales/a.csv.ctl" in batch.postponed[1]


class TestWriting:
    """How rows come into the table."""

    def test_a_merge_keeps_one_row_of_a_key(self, works: Works) -> None:
        """A file that is written again is merged: what it no longer has stays, and the older object stays loaded."""
        works.dataset = Dataset(name="sales", write="merge", key=["id"])
        works.parts.arrive("sales/a.csv", b"id,name\n1,old\n2,stays\n,none\n")
        works.drain()
        works.parts.arrive("sales/a.csv", b"id,name\n1,new\n")
        assert works.drain().outcomes == {"loaded": 1}
        assert works.rows("id, name") == [(1, "new"), (2, "stays")]
        assert works.parts.states("sales/a.csv") == [State.LOADED, State.LOADED]
        assert works.rows("check_name", "sales__rejected") == ["key"]

    def test_partitions_are_replaced(self, works: Works) -> None:
        """By what arrives later with the same values in its path."""
        works.dataset = Dataset(name="sales", write="replace_partition", partitions=["day"], columns={"day": "DATE"})
        works.parts.arrive("sales/day=2026-03-01/a.csv", csv_of(1, 2))
        works.parts.arrive("sales/day=2026-03-02/a.csv", csv_of(3))
        works.parts.arrive("sales/day=2026-03-01/b.csv", csv_of(4))
        works.parts.arrive("sales/c.csv", csv_of(5))
        assert works.drain().outcomes == {"loaded": 3, "quarantined": 1}
        assert works.rows("id, day") == [(3, date(2026, 3, 2)), (4, date(2026, 3, 1))]

    def test_a_function_makes_the_table(self, works: Works) -> None:
        """Its columns are the table's; an object on which it fails waits alone."""

        def upper(rows: pa.Table) -> pa.Table:
            names = rows.column("name").to_pylist()
            if "n3" in names:
                raise KeyError("n3")
            return rows.select(["id", "_penstock_row"]).append_column("loud", pa.array([n.upper() for n in names]))

        works.dataset = Dataset(name="sales", transform=upper)
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.parts.arrive("sales/b.csv", csv_of(3))
        works.parts.arrive("sales/c.csv", csv_of(4))
        assert works.drain().outcomes == {"loaded": 2, "quarantined": 1}
        assert works.rows("id, loud") == [(1, "N1"), (2, "N2"), (4, "N4")]
        assert reason(works, "sales/b.csv") == "transform: KeyError: 'n3'"

    def test_a_first_merge_of_rejected_rows_only(self, works: Works) -> None:
        """There is a table to come, though nothing to merge by yet."""
        works.dataset = Dataset(
            name="sales", write="merge", key=["id"], transform=lambda rows: rows, checks={"n": "false"}
        )
        works.parts.arrive("sales/a.csv", csv_of(1))
        report = works.drain()
        assert (report.outcomes, report.rejected) == ({"loaded": 1}, 1)


class TestOnlyRejected:
    """A replay of the rows that were put aside, after the declaration was mended."""

    @pytest.fixture
    def works(self, works: Works) -> Works:
        """Two rows loaded and two put aside, of which one is good by now."""
        works.dataset = Dataset(name="sales", checks={"small": "id < 3"})
        works.parts.arrive("sales/a.csv", csv_of(1, 2, 3, 4))
        works.drain()
        assert works.rows() == [1, 2]
        works.dataset = Dataset(name="sales", checks={"small": "id < 4"})
        return works

    def test_they_are_added(self, works: Works) -> None:
        """What is good by now comes to the others; the object's counts are those of the table."""
        replay_rejected(works)
        report = works.drain()
        assert (report.rows, report.rejected) == (3, 1)
        assert works.rows() == [1, 2, 3]
        (story,) = works.parts.stories("sales/a.csv")
        assert (story.state, story.rows, story.rejected) == (State.LOADED, 3, 1)

    def test_what_was_good_stays(self, works: Works) -> None:
        """Rows that are in the table are left there, though they would be put aside by now, and are counted."""
        works.dataset = Dataset(name="sales", checks={"middle": "id > 1 AND id < 4"})
        replay_rejected(works)
        works.drain()
        assert works.rows() == [1, 2, 3]
        (story,) = works.parts.stories("sales/a.csv")
        assert (story.state, story.rows) == (State.LOADED, 3)
        assert works.warehouse.damaged("sales") == []

    @pytest.mark.parametrize("how", ["gone", "refused", "empty"])
    def test_what_cannot_be_read_again_stays_as_it_was(self, works: Works, how: str) -> None:
        """Rows, rejected rows and state stay; its reason says why."""
        replay_rejected(works)
        if how == "gone":
            works.parts.server.client()._client.remove_object(works.parts.bucket, "sales/a.csv")
        elif how == "refused":
            works.dataset = replace(works.dataset, checks={"small": "id < 2"}, threshold=0.9)
        else:
            works.dataset = replace(works.dataset, where="false")
        assert works.drain().outcomes == {"loaded": 1}
        assert works.rows() == [1, 2]
        assert len(works.rows("reason", "sales__rejected")) == 2
        (story,) = works.parts.stories("sales/a.csv")
        assert (story.state, story.rows, story.rejected) == (State.LOADED, 2, 2)
        assert "its rows stay as they were" in (story.reason or "")


class TestEventTimes:
    """When what the rows tell of happened."""

    def test_the_watermark_moves_on_and_late_rows_are_counted(self, works: Works) -> None:
        """It is that of the batches before; rows without a time are passed over, and it never goes back."""
        works.dataset = Dataset(name="sales", event_time="at", lateness=timedelta(hours=1), columns={"at": "TIMESTAMP"})
        works.parts.arrive("sales/a.csv", b"id,at\n1,2026-03-01 10:00\n2,2026-03-01 12:00\n3,\n4,x\n")
        first = works.drain()
        assert first.times == EventTimes(
            least=datetime(2026, 3, 1, 10, tzinfo=UTC), greatest=datetime(2026, 3, 1, 12, tzinfo=UTC), late=0
        )
        works.parts.arrive("sales/b.csv", b"id,at\n5,2026-03-01 10:59:59\n6,2026-03-01 11:00\n7,2026-02-01 00:00\n")
        works.parts.arrive("sales/c.csv", b"id,at\n8,2026-03-01 11:00\n")
        second = works.drain()
        assert history(works, "sales/b.csv") == "3 rows, 0 rejected; 2 late"
        assert history(works, "sales/c.csv") == "1 rows, 0 rejected"
        assert second.told()["event_times"] == {
            "least": "2026-02-01T00:00:00+00:00",
            "greatest": "2026-03-01T11:00:00+00:00",
            "late": 2,
        }
        assert "| 2026-02-01T00:00:00+00:00 | 2026-03-01T11:00:00+00:00 | 2 |" in as_markdown("sales", second, 0.1)
        assert works.parts.ledger.watermarks.of("sales") == Watermark(
            event_time=datetime(2026, 3, 1, 12, tzinfo=UTC), late=2
        )

    def test_what_is_loaded_again_is_not_counted(self, works: Works) -> None:
        """It came in time when it came."""
        works.dataset = Dataset(name="sales", event_time="day", checks={"rows": row_count(1)})
        works.parts.arrive("sales/a.csv", b"id,day\n1,2026-03-01\n")
        works.parts.arrive("sales/b.csv", b"id,day\n2,2026-04-01\n")
        works.drain()
        done = works.parts.ledger.replay.replay(
            Selection(keys=("sales/a.csv",)), datasets=[works.dataset], force=True, by="a test"
        )
        assert done.moved == 1
        assert works.drain().told() == {}
        assert works.parts.ledger.watermarks.of("sales") == Watermark(
            event_time=datetime(2026, 4, 1, tzinfo=UTC), late=0
        )

    def test_what_a_backfill_brings_is_never_late(self, works: Works) -> None:
        """It was old before it came; what it tells of moves the watermark."""
        works.dataset = Dataset(name="sales", event_time="day", backfill=Backfill(prefix="archive/"))
        works.parts.datasets = [works.dataset]
        works.parts.landing = works.parts.landing_with(works.parts.store)
        works.parts.arrive("sales/a.csv", b"id,day\n1,2026-03-01\n")
        works.drain()
        works.parts.arrive("archive/b.csv", b"id,day\n2,2020-01-01\n3,2026-04-01\n")
        assert works.drain().told()["event_times"]["late"] == 0
        assert history(works, "archive/b.csv") == "2 rows, 0 rejected"
        works.parts.arrive("sales/c.csv", b"id,day\n4,2026-03-02\n")
        assert works.drain().told()["event_times"]["late"] == 1
        assert works.rows("count(*)") == [4]

    def test_a_column_that_is_no_time(self, works: Works) -> None:
        """The declaration is wrong; of a first object that may be too, and it waits."""
        works.dataset = Dataset(name="sales", event_time="name")
        works.parts.arrive("sales/a.csv", csv_of(1))
        assert works.drain().outcomes == {"quarantined": 1}
        assert "event_time 'name' is VARCHAR, and must be TIMESTAMP" in reason(works, "sales/a.csv")
