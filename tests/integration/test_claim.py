"""`penstock.claim` in flows: real store, ledger and DuckDB; Prefect's engine where a flow is what is tested."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select, update

import penstock
from penstock import faults
from penstock.errors import LeaseLost, ObjectMissing, PenstockError, Refused
from penstock.flows.ingest import ingest
from penstock.ledger import Ledger, tables
from penstock.model import Delivery, State, Via
from penstock.project import FOLDERS, load_project
from penstock.settings import Settings, load_settings
from penstock.warehouse.duckdb import DuckDBWarehouse
from penstock.wiring import open_landing
from tests.integration.prefect_parts import PROJECT, PrefectParts, prefect_parts
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

TTL = timedelta(seconds=30)
Write = Callable[[str], None]


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, embedded: RealStore) -> Iterator[PrefectParts]:
    """A Prefect server, for the tests here whose flows are run by Prefect."""
    with prefect_parts(tmp_path_factory.mktemp("prefect"), embedded) as parts:
        parts.start_server()
        yield parts


@dataclass(kw_only=True)
class Shop:
    """A project whose settings this process has, with the dataset `sales`."""

    parts: PrefectParts
    ledger: Ledger

    @property
    def settings(self) -> Settings:
        """As `penstock.claim` has them."""
        return load_settings()

    def arrive(self, *numbers: int, body: str = "id,name\n{0},n{0}\n") -> None:
        """One object for each number, put and recorded."""
        for number in numbers:
            self.put(f"sales/{number:02}.csv", body.format(number).encode())

    def put(self, key: str, data: bytes) -> None:
        """One object, put and recorded."""
        store = self.parts.store.client()
        store.put_bytes(self.settings.bucket, key, data)
        assert self.landing.seen(self.settings.bucket, [key], Via.NOTIFICATION) == 1

    @property
    def landing(self) -> Any:
        """The way in."""
        project = load_project(self.settings.project_dir, only=["flows"])
        return open_landing(self.settings, project, self.parts.store.client(), self.ledger)

    def rows(self, columns: str = "id", table: str = "sales") -> list[Any]:
        """The table's rows in order; single columns as values."""
        found = self.warehouse.query(f"SELECT {columns} FROM {table} ORDER BY ALL", limit=1000).rows
        return [row[0] for row in found] if "," not in columns else found

    @property
    def warehouse(self) -> DuckDBWarehouse:
        """The project's."""
        return DuckDBWarehouse(self.settings.warehouse)

    def states(self, *numbers: int) -> list[State]:
        """Of the objects that arrived by their numbers."""
        return [self.ledger.facts.stories(f"sales/{number:02}.csv")[0].state for number in numbers]

    def free(self) -> None:
        """As when the pause after a failure is over."""
        with self.ledger.database.write() as connection:
            connection.execute(update(tables.leases).values(hold_until=None))


@pytest.fixture
def shop(tmp_path: Path, embedded: RealStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A new project on the module's store, in a bucket of its own, into which this process has gone."""
    path, modules = list(sys.path), {name for name in sys.modules if name.split(".")[0] in FOLDERS}
    ours = {name: sys.modules.pop(name) for name in modules}
    with prefect_parts(tmp_path, embedded) as parts:
        bucket = f"own-{tmp_path.name.replace('_', '-')}"[:60].lower()
        embedded.client().ensure_bucket(bucket)
        env = {**parts.env, "PENSTOCK_BUCKET": bucket}
        for name in [name for name in os.environ if name.startswith(("PENSTOCK_", "PREFECT_"))]:
            monkeypatch.delenv(name)
        for name, value in env.items():
            if name.startswith("PENSTOCK_"):
                monkeypatch.setenv(name, value)
        monkeypatch.setattr(faults, "_folder", str(parts.faults))
        monkeypatch.chdir(tmp_path)
        ledger = parts.ledger()
        try:
            yield Shop(parts=parts, ledger=ledger)
        finally:
            ledger.close()
            sys.path[:] = path
            for name in [name for name in sys.modules if name.split(".")[0] in FOLDERS]:
                del sys.modules[name]
            sys.modules.update(ours)


def doubled(table: pa.Table) -> list[dict[str, Any]]:
    """What the flows here make of rows."""
    return [{**row, "twice": row["id"] * 2} for row in table.to_pylist()]


def test_rows_of_ones_own_take_the_place_of_the_objects(shop: Shop) -> None:
    """Each object's rows are the flow's, with the columns it adds; its markers are there, and nothing comes again."""
    shop.arrive(1, 2, 3)
    with penstock.claim("sales") as claim:
        assert [one.key for one in claim.objects] == ["sales/01.csv", "sales/02.csv", "sales/03.csv"]
        for one in claim.objects:
            with one.open() as file:
                assert len(file.read()) == one.size
            claim.load(doubled(one.arrow()), of=one)
        assert not shop.settings.warehouse.exists(), "nothing is written before the end"
    assert shop.rows("id, twice") == [(1, 2), (2, 4), (3, 6)]
    assert shop.states(1, 2, 3) == [State.LOADED] * 3
    assert not list((shop.settings.home / "spool").iterdir())
    with penstock.claim("sales") as claim:
        assert not claim
        assert claim.objects == []


def test_what_the_dataset_reads_is_loaded_as_ingest_loads_it(shop: Shop) -> None:
    """Without rows of one's own the dataset's reading is what is loaded, bad objects put aside."""
    shop.arrive(1, 2)
    shop.put("sales/03.csv", b'{"not": \x00')
    with penstock.claim("sales") as claim:
        claim.load()
        assert [one.key for one in claim.objects] == ["sales/01.csv", "sales/02.csv", "sales/03.csv"]
        assert [one.key for one in claim.quarantined] == ["sales/03.csv"]
    assert shop.rows("id, name") == [(1, "n1"), (2, "n2")]
    assert shop.states(1, 2, 3) == [State.LOADED, State.LOADED, State.QUARANTINED]


def test_one_bad_object_stops_no_other(shop: Shop) -> None:
    """What cannot be read has no rows, and what is given for it is not loaded; the loop over all goes on."""
    shop.arrive(1)
    with penstock.claim("sales") as claim:
        claim.load()
    shop.arrive(2)
    shop.put("sales/03.csv", b"\x00\x01\x02 not text")
    shop.put("sales/04.csv", b"id,name\n4,n4\nx,bad\n")
    with penstock.claim("sales") as claim:
        for one in claim.objects:
            table = one.arrow()
            assert table.column_names == ["id", "name"]
            claim.load(doubled(table), of=one)
    assert shop.rows("id, twice") == [(1, None), (2, 4), (4, 8)]
    assert shop.states(2, 3, 4) == [State.LOADED, State.QUARANTINED, State.LOADED]
    (bad,) = shop.rows("_penstock_object, raw", table="sales__rejected")
    assert "sales/04.csv" in bad[0], "a row that was put aside stays put aside"


def test_what_cannot_be_read_has_the_declared_columns(shop: Shop) -> None:
    """Before anything was loaded, too: a loop over all objects finds the columns that the dataset names."""
    (shop.parts.folder / "flows" / "bills.py").write_text(
        'from penstock import Dataset\n\nDATASET = Dataset(name="bills", columns={"id": "BIGINT", "day": "DATE"})\n'
    )
    for name in ("sales", "bills"):
        shop.put(f"{name}/01.csv", b"\x00\x01\x02 not text")
    with penstock.claim("bills") as bills, penstock.claim("sales") as sales:
        assert bills.objects[0].arrow().schema == pa.schema([("id", pa.int64()), ("day", pa.date32())])
        assert sales.objects[0].arrow().column_names == []
    assert not bills.busy


def test_a_column_without_a_value_becomes_no_text(shop: Shop) -> None:
    """What is None in all rows of a batch gets its type by the first value that comes."""
    for number, score in ((1, None), (2, 0.5), (3, None)):
        shop.arrive(number)
        with penstock.claim("sales") as claim:
            claim.load([{"id": number, "score": score}])
    assert shop.rows("id, score") == [(1, None), (2, 0.5), (3, None)]
    assert ("score", "DOUBLE") in [row[:2] for row in shop.warehouse.query("DESCRIBE sales", limit=99).rows]


def test_rows_of_a_batch_of_which_nothing_can_be_read_are_refused(shop: Shop) -> None:
    """They would belong to no object: that is said, and nothing is lost without a word."""
    shop.put("sales/01.csv", b"\x00\x01\x02 not text")
    with pytest.raises(PenstockError, match="all of its objects go to quarantine"), penstock.claim("sales") as claim:
        claim.load([{"total": claim.objects[0].arrow().num_rows}])
    shop.free()
    with penstock.claim("sales") as claim:
        claim.load()
    assert shop.states(1) == [State.QUARANTINED]


def test_rows_of_the_whole_batch(shop: Shop) -> None:
    """A total belongs to the first object; the others bring nothing, have markers, and are loaded."""
    shop.arrive(1, 2, 3)
    with penstock.claim("sales") as claim:
        total = sum(pa.compute.sum(one.arrow()["id"]).as_py() for one in claim.objects)
        claim.load([{"total": total, "objects": len(claim.objects)}])
    assert shop.rows("total, objects, _penstock_row") == [(6, 3, 1)]
    assert "name" not in [row[0] for row in shop.warehouse.query("DESCRIBE sales", limit=99).rows], "only what it gave"
    assert shop.states(1, 2, 3) == [State.LOADED] * 3
    assert shop.rows("rows", table="_penstock_objects") == [0, 0, 1]


def test_what_was_warned_of_is_told_of_rows_of_ones_own_too(shop: Shop) -> None:
    """The warnings and left out rows of the dataset's reading stay counted when a flow gives rows in its place."""
    (shop.parts.folder / "flows" / "bills.py").write_text(
        "from penstock import Check, Dataset\n\n"
        'DATASET = Dataset(name="bills", where="id < 9", '
        'checks={"small": Check("id < 2", severity="warn")})\n'
    )
    shop.put("bills/01.csv", b"id\n1\n2\n9\n")
    with penstock.claim("bills") as claim:
        (one,) = claim.objects
        claim.load(doubled(one.arrow()), of=one)
    assert shop.rows("id, twice", table="bills") == [(1, 2), (2, 4)]
    (story,) = shop.ledger.facts.stories("bills/01.csv")
    assert story.facts[-1].detail == "2 rows, 0 rejected; 1 warned of by small; 1 passed over by where"


def test_done_and_quarantine(shop: Shop) -> None:
    """What needs no rows is done, and what the flow does not want is put aside with its reason."""
    shop.arrive(1, 2)
    with penstock.claim("sales") as claim:
        claim.quarantine(claim.objects[0], "the picture is dark")
        claim.done()
    assert shop.states(1, 2) == [State.QUARANTINED, State.LOADED]
    assert shop.ledger.facts.stories("sales/01.csv")[0].reason == "the picture is dark"
    assert shop.rows("object", table="_penstock_objects") == [f"{shop.settings.bucket}/sales/02.csv@1"]
    assert shop.warehouse.damaged("sales") == []


def test_bytes_stay_what_they_were(shop: Shop) -> None:
    """A packed object is given packed, also after its rows were asked for."""
    packed = gzip.compress(b"id,name\n7,n7\n")
    shop.arrive(1)
    with penstock.claim("sales") as claim:
        claim.load()
    # By a known schema small ones are unpacked to be read together.
    shop.put("sales/07.csv.gz", packed)
    shop.put("sales/08.csv.gz", packed)
    with penstock.claim("sales") as claim:
        one, _ = claim.objects
        assert one.arrow().to_pylist() == [{"id": 7, "name": "n7"}]
        assert one.path.read_bytes() == packed
        copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own, as Prefect makes it
        with copy.open() as file:
            assert file.read() == packed
        with pytest.raises(PenstockError, match="in the flow that claimed it"):
            copy.arrow()
        claim.load()


def test_a_delivery_is_its_body(shop: Shop) -> None:
    """Of a webhook's delivery the flow gets the body, however the dataset reads it."""
    (shop.parts.folder / "flows" / "raw.py").write_text(
        'from penstock import Dataset\n\nDATASET = Dataset(name="raw", format="delivery")\n'
    )
    for dataset in ("sales", "raw"):
        delivery = Delivery(
            id="d1",
            source=dataset,
            dataset=dataset,
            received_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            content_type="application/json",
            headers={},
            body=b'[{"id": 5}]',
        )
        assert shop.landing.accept([delivery]) == [False]
        with penstock.claim(dataset) as claim:
            (one,) = claim.objects
            with one.open() as body:
                assert body.read() == b'[{"id": 5}]'
            claim.load()
    assert shop.rows() == [5]


def test_an_exception_gives_everything_back(shop: Shop) -> None:
    """What a block raises is raised, nothing is written, and it counts as an attempt; a cancelled one does not."""
    shop.arrive(1, 2)

    def fails(error: BaseException) -> None:
        with penstock.claim("sales") as claim:
            claim.load([{"id": 99}])
            raise error

    with pytest.raises(RuntimeError, match="in the middle"):
        fails(RuntimeError("in the middle"))
    assert shop.states(1, 2) == [State.PENDING] * 2
    assert "attempt 1" in str(shop.ledger.facts.stories("sales/01.csv")[0].reason)
    shop.free()
    with pytest.raises(KeyboardInterrupt):
        fails(KeyboardInterrupt())
    assert shop.ledger.facts.stories("sales/01.csv")[0].reason == "the run was cancelled"
    shop.free()
    with penstock.claim("sales") as claim:
        claim.load()
    assert shop.rows() == [1, 2]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        pytest.param(lambda claim: None, "nothing was said of 2 objects", id="nothing"),
        pytest.param(lambda claim: claim.done(claim.objects[0]), "of 1 objects of sales .sales/02", id="one of two"),
        pytest.param(lambda claim: (claim.load([{}]), claim.load()), "each object has its own", id="both"),
    ],
)
def test_a_claim_that_is_used_wrongly_blames_no_object(
    shop: Shop, use: Callable[[penstock.flows.claimed.Claim], Any], message: str
) -> None:
    """The error says what to call, and the objects come again, all of them together."""
    shop.arrive(1, 2)
    with pytest.raises(PenstockError, match=message), penstock.claim("sales") as claim:
        use(claim)
    assert "attempt" not in str(shop.ledger.facts.stories("sales/01.csv")[0].reason)
    shop.free()
    with penstock.claim("sales") as claim:
        assert len(claim.objects) == 2
        claim.done()


def test_two_at_once(shop: Shop) -> None:
    """While one has the dataset the other gets nothing; what came meanwhile is asked for when it ends."""
    shop.arrive(1)
    with penstock.claim("sales") as first:
        with penstock.claim("sales") as second:
            assert not second
            assert second.busy
            with pytest.raises(PenstockError, match="if claim:"):
                second.load([{"id": 1}])
        shop.arrive(2)
        assert shop.ledger.wakeups.outstanding() == []
        first.load()
    assert [wakeup.dataset for wakeup in shop.ledger.wakeups.outstanding()] == ["sales"]
    with penstock.claim("sales") as claim:
        claim.load()
    assert shop.rows() == [1, 2]
    assert shop.ledger.wakeups.outstanding() == []


def test_a_lost_lease_writes_nothing(shop: Shop) -> None:
    """Where another run took over, the block's end raises LeaseLost, and only the other's rows are there."""
    shop.arrive(1)

    def outrun() -> None:
        with penstock.claim("sales") as claim:
            claim.load([{"id": 99}])
            with shop.ledger.database.write() as connection:
                past = shop.ledger.database.clock() - TTL
                connection.execute(update(tables.leases).values(expires_at=past))
            with penstock.claim("sales") as other:
                assert other
                other.load()

    with pytest.raises(LeaseLost):
        outrun()
    assert shop.rows() == [1]
    assert shop.states(1) == [State.LOADED]


def test_the_lease_is_kept_while_a_flow_blocks(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat is a thread's: an async flow that holds up its event loop keeps the dataset all the same."""
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1")
    shop.arrive(1)

    async def block() -> None:
        async with penstock.claim("sales") as claim:
            claim.load()
            before = expires()
            # Without an await: nothing else can run in this loop.
            wait_for(lambda: expires() > before, what="the lease was renewed")

    def expires() -> Any:
        with shop.ledger.database.read() as connection:
            return connection.execute(select(tables.leases.c.expires_at)).scalar_one()

    asyncio.run(block())
    assert shop.rows() == [1]


_TEN = """
import asyncio, sqlite3
from contextlib import closing
import penstock
from prefect import flow, task

@task
def twice(one):
    return [{**row, "twice": row["id"] * 2} for row in one.arrow().to_pylist()]

@flow
def sync(fail=False):
    with penstock.claim("sales") as claim:
        made = twice.map(claim.objects)
        for one, rows in zip(claim.objects, made.result()):
            claim.load(rows, of=one)
            if fail:
                raise RuntimeError("in the middle")
        return len(claim.objects)

@flow
async def concurrent(fail=False):
    async with penstock.claim("sales") as claim:
        made = twice.map(claim.objects)
        for one, rows in zip(claim.objects, made.result()):
            claim.load(rows, of=one)
            if fail:
                raise RuntimeError("in the middle")
        return len(claim.objects)

def run(which, fail=False):
    found = which(fail)
    return asyncio.run(found) if asyncio.iscoroutine(found) else found

def twice_over(which):
    try:
        run(which, fail=True)
    except RuntimeError:
        with closing(sqlite3.connect(".penstock/ledger.db")) as ledger, ledger:
            assert ledger.execute("SELECT DISTINCT state FROM objects").fetchall() == [("pending",)]
            ledger.execute("UPDATE leases SET hold_until = NULL")
    run(which)
"""


@dataclass(frozen=True)
class Ran:
    """How a process ended, and what it said."""

    code: int
    log: str


def runs(shop: Shop, prefect: PrefectParts, said: str) -> Ran:
    """Run a line of the module `own` in a process of its own, by Prefect's engine on the module's server."""
    env = {**os.environ, **{k: v for k, v in prefect.client_env().items() if k.startswith("PREFECT_")}}
    env |= {"PYTHONPATH": str(shop.parts.folder), "PENSTOCK_LEASE_SECONDS": "3"}
    shop.parts.start("flow", [sys.executable, "-c", f"from own import *; {said}"], env)
    code = shop.parts.processes["flow"].wait(60)
    shop.parts.kill_if_alive("flow")
    return Ran(code, shop.parts.log("flow", most=100_000))


@pytest.mark.parametrize("kind", ["sync", pytest.param("concurrent", marks=pytest.mark.slow)])
def test_a_flow_gets_its_input_exactly_once(shop: Shop, prefect: PrefectParts, kind: str) -> None:
    """Ten objects, a failure in the middle, kill -9 between warehouse and ledger: every row is there once, by tasks."""
    shop.arrive(*range(10))
    (shop.parts.folder / "own.py").write_text(_TEN)
    (shop.parts.faults / "warehouse.after_commit").write_text("kill")
    killed = runs(shop, prefect, f"twice_over({kind})")
    assert killed.code == -signal.SIGKILL, killed.log
    assert "RuntimeError: in the middle" in killed.log
    assert "cache key" not in killed.log
    assert len(shop.rows()) == 10, "the rows were committed"
    assert shop.states(*range(10)) == [State.CLAIMED] * 10, "and the ledger does not know"

    def again() -> bool:
        # Until the lease of the killed run expires nobody gets anything.
        with penstock.claim("sales") as claim:
            assert not claim
        return set(shop.states(*range(10))) == {State.LOADED}

    wait_for(again, what="the ledger knows")
    assert shop.rows("id, twice") == [(number, 2 * number) for number in range(10)]


def test_landing_asking_and_keeping(shop: Shop, tmp_path: Path) -> None:
    """What a flow lands is loaded by the dataset that takes the key; the same again is not new; a model is kept."""
    assert penstock.land("sales/a.csv", "id,name\n1,one\n")
    assert not penstock.land("sales/a.csv", b"id,name\n1,one\n")
    assert penstock.land("sales/b.parquet", [{"id": 2, "name": "two"}])
    (tmp_path / "c.csv").write_text("id,name\n3,three\n")
    assert penstock.land("sales/c.csv", tmp_path / "c.csv")
    assert [wakeup.dataset for wakeup in shop.ledger.wakeups.outstanding()] == ["sales"]
    assert shop.ledger.facts.stories("sales/a.csv")[0].via is Via.FLOW
    with pytest.raises(Refused, match="no dataset takes"):
        penstock.land("other/x.csv", b"1")
    with penstock.claim("sales") as claim:
        claim.load()
    found = penstock.query("SELECT id, name, id / 2 AS half FROM sales ORDER BY id")
    assert found.to_pylist()[1:] == [{"id": 2, "name": "two", "half": 1.0}, {"id": 3, "name": "three", "half": 1.5}]
    assert penstock.query("SELECT id FROM sales", limit=2).num_rows == 2
    with pytest.raises(PenstockError):
        penstock.query("DELETE FROM sales")
    with pytest.raises(ObjectMissing):
        penstock.kept("model.bin")
    penstock.keep("model.bin", b"1")
    penstock.keep("model.bin", b"2")
    assert penstock.kept("model.bin") == b"2"
    keys = [one.key for one in shop.parts.store.client().list(shop.settings.bucket)]
    assert f"_penstock/kept/{PROJECT}/model.bin" in keys
    sink = io.BytesIO()
    pa.parquet.write_table(found, sink)
    with pytest.raises(PenstockError, match="a name like"):
        penstock.keep("../model.bin", sink.getvalue())


_ANALYSE = """
from datetime import timedelta

import penstock
from penstock import Deployment
from prefect import flow, task


@task
def more(one, factor):
    return [{**row, "more": row["id"] * factor} for row in one.arrow().to_pylist()]


@flow(flow_run_name="analyse {factor}")
def analyse(factor: int, note: str = "") -> int:
    with penstock.claim("sales") as claim:
        for one, rows in zip(claim.objects, more.map(claim.objects, factor).result()):
            claim.load(rows, of=one)
        return len(claim.objects)


DEPLOYMENTS = [
    Deployment(flow=analyse, consumes="sales", parameters={"factor": 2}, tags=["nightly"], cron=["0 3 * * *"],
               rrule=["FREQ=WEEKLY;BYDAY=MO"], timezone="Europe/Berlin", every=timedelta(hours=6)),
    Deployment(flow=analyse, name="threefold", parameters={"factor": 3}),
]
"""


def test_ingest_leaves_a_consumed_dataset_alone(shop: Shop) -> None:
    """A deployment of before that is still on the server takes nothing from the flow that consumes."""
    (shop.parts.folder / "flows" / "analyse.py").write_text(_ANALYSE)
    shop.arrive(1)
    result = asyncio.run(ingest.fn("sales"))
    assert (result["status"], result["reason"]) == ("skipped", "the flow analyse takes what is new in it")
    assert shop.states(1) == [State.PENDING]
    assert [wakeup.dataset for wakeup in shop.ledger.wakeups.outstanding()] == ["sales"]


@pytest.mark.slow
@pytest.mark.long
def test_a_deployment_of_ones_own_is_woken_and_run(prefect: PrefectParts) -> None:
    """What is declared is planned, applied, woken by an arrival and run by the worker, in the place of `ingest`."""

    def penstock_says(*argv: str) -> tuple[int, str]:
        done = subprocess.run(
            [*prefect.penstock, *argv], env=prefect.env, capture_output=True, text=True, timeout=90, check=False
        )
        return done.returncode, done.stdout + done.stderr

    automations = prefect.folder / "automations" / "arrival.py"
    (prefect.folder / "flows" / "analyse.py").write_text(_ANALYSE)
    code, said = penstock_says("plan")
    assert code == 1
    assert "on_arrival('sales', flow='analyse')" in said
    automations.write_text(automations.read_text().replace('("sales")', '("sales", flow="analyse")'))
    prefect.apply()
    code, said = penstock_says("plan", "--detailed-exitcode")
    assert code == 0, said
    found = prefect.ask("GET", f"/deployments/name/analyse/{PROJECT}.sales")
    assert (found["entrypoint"], found["parameters"]) == ("flows.analyse.analyse", {"factor": 2})
    assert len(found["schedules"]) == 3
    assert {"nightly", "sales"} < set(found["tags"])
    assert prefect.answer("GET", f"/deployments/name/ingest/{PROJECT}.sales").status_code == 404
    refused = prefect.answer("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": {"factor": "x"}})
    assert refused.status_code == 409, "parameters are validated"
    prefect.start_worker()
    prefect.start_relay()
    prefect.arrive("sales/own.csv")
    wait_for(lambda: prefect.states("sales/own.csv") == [State.LOADED], seconds=60, what=prefect.log("relay"))
    rows = DuckDBWarehouse(prefect.settings().warehouse).query("SELECT id, more FROM sales ORDER BY id", limit=9).rows
    assert rows == [(0, 0), (1, 2), (2, 4)]
    runs = prefect.ask("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["analyse"]}}})
    assert "analyse 2" in [run["name"] for run in runs]
