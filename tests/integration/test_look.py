"""`preview`, `profile` and `schema` beside what really was loaded: real store, ledger, DuckDB and PostgreSQL."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from penstock.cli.preview import preview
from penstock.cli.profile import profile
from penstock.cli.profiling import profile_of
from penstock.cli.schema import schema
from penstock.declarations import Dataset
from penstock.errors import PenstockError
from penstock.flows.batch import Batch
from penstock.model import Outcome, State
from penstock.warehouse.base import Warehouse
from penstock.warehouse.duckdb import DuckDBWarehouse
from penstock.warehouse.postgres import PostgresWarehouse
from tests.integration.parts import Parts, parts_in
from tests.real_postgres import shared_postgres
from tests.real_store import RealStore, real_store

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data"
BIRDS = (DATA / "birdstrikes.csv").read_bytes()
QUAKES = (DATA / "earthquakes.geojson").read_bytes()

_DECLARED: dict[str, dict[str, Any]] = {
    "sales": {"checks": {"positive": "quantity > 0"}, "threshold": 0.5},
    "plain": {},
    "frozen": {"schema": "freeze"},
    "grown": {"schema": "evolve"},
    "birds": {"columns": {"flight_date": "DATE", "speed_ias_in_knots": "DOUBLE"}},
    "quakes": {
        "records": "features",
        "derive": {"at": "make_timestamptz(properties_time * 1000)"},
        "checks": {"has_a_time": "properties_time > 0"},
    },
}
DATASETS = {name: Dataset(name=name, **fields) for name, fields in _DECLARED.items()}


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path, embedded: RealStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """A project whose ledger, store and warehouse the commands find by its settings."""
    (tmp_path / "flows").mkdir()
    for name, fields in _DECLARED.items():
        (tmp_path / "flows" / f"{name}.py").write_text(
            f"from penstock import Dataset\nDATASET = Dataset(name={name!r}, **{fields!r})\n"
        )
    kept = list(sys.path)
    there = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "flows"}
    with parts_in(tmp_path, embedded, list(DATASETS.values())) as parts:
        for name, value in {
            "HOME": str(tmp_path),
            "PROJECT": "demo",
            "BUCKET": parts.bucket,
            "S3_ENDPOINT": embedded.endpoint,
            "S3_ACCESS_KEY": embedded.access_key,
            "S3_SECRET_KEY": embedded.secret_key,
        }.items():
            monkeypatch.setenv(f"PENSTOCK_{name}", value)
        for name in ("LEDGER_URL", "WAREHOUSE", "WAREHOUSE_URL", "INBOX"):
            monkeypatch.delenv(f"PENSTOCK_{name}", raising=False)
        yield parts
    sys.path[:] = kept
    for name in [name for name in sys.modules if name.partition(".")[0] == "flows"]:
        del sys.modules[name]
    sys.modules.update(there)


def load(parts: Parts, key: str, content: bytes, warehouse: Warehouse | None = None) -> Outcome:
    """What becomes of an object that arrives and is loaded as a run does it."""
    parts.arrive(key, content)
    dataset = DATASETS[key.partition("/")[0]]
    lease = parts.ledger.work.acquire(dataset.name, holder="run", ttl=timedelta(seconds=60))
    assert lease is not None
    refs = parts.ledger.work.claim(lease, run="run", max_objects=10, max_bytes=10**9)
    spool = parts.folder / "spool"
    spool.mkdir()
    batch = Batch(
        refs,
        dataset=dataset,
        lease=lease,
        run="run",
        store=parts.store,
        ledger=parts.ledger,
        warehouse=warehouse or DuckDBWarehouse(parts.folder / "warehouse.duckdb"),
        landing=parts.landing,
        spool=spool,
        clock=parts.ledger.database.clock,
    )
    batch.fetch()
    batch.check()
    batch.load()
    (outcome,), _ = batch.settle()
    batch.clean()
    assert parts.ledger.work.finish(lease)
    return outcome


def run(parts: Parts, command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, obj=parts.folder)


def facts(parts: Parts, command: click.Command, *arguments: str) -> Any:
    """What it prints for a program."""
    result = run(parts, command, *arguments, "--json")
    assert result.output.startswith(("{", "[")), result.exception
    return json.loads(result.output)


@pytest.mark.parametrize(
    ("first", "key", "content"),
    [
        (None, "sales/a.csv", b"item,quantity\na,1\nb,0\n"),
        (None, "sales/a.csv", b"item,quantity\na,0\nb,0\nc,1\n"),
        (None, "sales/a.csv", b"item,quantity\n"),
        (None, "sales/a.csv", b""),
        (None, "sales/a.json", b'{"item": '),
        (None, "sales/a.csv", b"item\na\n"),
        (b"item,quantity\na,1\n", "sales/b.csv", b"item,quantity\nb,1.5\n"),
        (b"item,quantity\na,1\n", "plain/b.csv", b"colour,size\nred,1\n"),
        (b"item,quantity\na,1\n", "sales/b.csv", b"item,quantity,colour\nb,2,red\nc,x,blue\n"),
        (b"item,quantity\na,1\n", "frozen/b.csv", b"item,quantity,colour\nb,2,red\n"),
        (b"item,quantity\na,1\n", "grown/b.csv", b"item,quantity,colour\nb,2,red\n"),
        (None, "birds/b.csv", BIRDS),
        (None, "quakes/b.geojson", QUAKES),
    ],
    ids=[
        "half-good",
        "under-the-threshold",
        "no-records",
        "no-bytes",
        "broken",
        "lacks-a-checked-column",
        "widened",
        "strange",
        "rescued",
        "frozen",
        "grown",
        "birds",
        "quakes",
    ],
)
def test_a_preview_says_what_a_load_does(parts: Parts, first: bytes | None, key: str, content: bytes) -> None:
    """State, reason, rows and rejected rows, by the schema that the ledger remembers, and before there is one."""
    folder, _, name = key.partition("/")
    if first is not None:
        assert load(parts, f"{folder}/first.csv", first).state is State.LOADED
    (parts.folder / "inbox" / folder).mkdir(parents=True)
    (parts.folder / "inbox" / folder / name).write_bytes(content)
    shown = facts(parts, preview, str(parts.folder / "inbox" / folder / name))
    assert shown["schema_note"].startswith("schema version 1, which" if first is not None else "schema inferred")
    outcome = load(parts, key, content)
    assert shown["verdict"] == outcome.state.value
    if content != b"item\na\n":  # of a wrong declaration a preview says more: where it stands, and what would be right
        assert shown["reason"] == outcome.reason
    if outcome.state is State.LOADED:
        assert (shown["good"], shown["rejected"]) == (outcome.rows, outcome.rejected)
        columns = {one["name"] for one in facts(parts, profile, folder)["columns"]}
        assert columns == {one["name"] for one in shown["columns"]}


def test_an_object_of_the_bucket(parts: Parts) -> None:
    """Is looked at where it is, by its key."""
    parts.put("sales/a.csv", b"item,quantity\na,1\n")
    shown = facts(parts, preview, f"s3://{parts.bucket}/sales/a.csv")
    assert (shown["dataset"], shown["key"], shown["good"]) == ("sales", "sales/a.csv", 1)
    assert isinstance(run(parts, preview, f"s3://{parts.bucket}/sales/none.csv").exception, PenstockError)


def test_the_versions_of_a_schema(parts: Parts) -> None:
    """For each format, the oldest first, with cause and difference; and nothing where nothing was loaded."""
    assert facts(parts, schema, "grown") == []
    nothing = run(parts, schema, "grown")
    assert "penstock preview FILE --dataset grown" in str(nothing.exception)
    load(parts, "grown/1.csv", b"item,quantity\na,1\n")
    load(parts, "grown/2.csv", b"item,quantity\na,1.5\n")
    load(parts, "grown/3.csv", b"item,quantity,colour\na,1.5,red\n")
    load(parts, "grown/4.json", b'{"item": "a", "quantity": 1}')
    told = facts(parts, schema, "grown")
    assert [(one["format"], one["version"], one["changed"]) for one in told] == [
        ("csv", 1, []),
        ("csv", 2, ["~ quantity BIGINT → DOUBLE"]),
        ("csv", 3, ["+ colour VARCHAR"]),
        ("json", 1, []),
    ]
    assert [one["cause"].partition(":")[0] for one in told] == [
        "first object",
        "numbers widened",
        "new columns colour",
        "first object",
    ]
    assert told[0]["at"] <= told[2]["at"]
    shown = run(parts, schema, "grown").output
    assert shown.index("numbers widened") < shown.index("~ quantity BIGINT → DOUBLE") < shown.index("+ colour VARCHAR")
    assert '$."item"' in shown


def test_a_table_that_is_not_there_or_empty(parts: Parts) -> None:
    """Says so, and what to do next; a dataset that is none is named."""
    for command in ("frozen", "sales"):
        if command == "sales":
            load(parts, "grown/1.csv", b"item\na\n")
        missing = run(parts, profile, command)
        assert isinstance(missing.exception, PenstockError)
        assert f"penstock preview FILE --dataset {command}" in str(missing.exception)
    load(parts, "birds/1.csv", b"item,flight_date\na,x\n")
    empty = run(parts, profile, "birds")
    assert "birds has a table without rows; 1 rows were rejected" in str(empty.exception)
    assert "penstock quarantine ls --dataset birds" in str(empty.exception)
    assert "there are: birds, frozen" in str(run(parts, profile, "sale").exception)


@pytest.fixture(params=["DuckDB", "PostgreSQL"])
def warehouse(request: pytest.FixtureRequest, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """Each kind, as the commands find it by the settings."""
    if request.param == "DuckDB":
        yield DuckDBWarehouse(parts.folder / "warehouse.duckdb")
        return
    server = shared_postgres()
    with server.database() as name:
        monkeypatch.setenv("PENSTOCK_WAREHOUSE_URL", server.url(name))
        yield PostgresWarehouse(server.url(name))


def test_a_profile(parts: Parts, warehouse: Warehouse) -> None:
    """Least and greatest value, how many there are and how many are empty, of real files; the same of both kinds."""
    load(parts, "birds/a.csv", BIRDS, warehouse)
    told = facts(parts, profile, "birds")
    assert (told["rows"], told["objects"], told["rejected"], told["rescued"]) == (1500, 1, 0, 0)
    columns = {one["name"]: one for one in told["columns"]}
    assert next(iter(columns)) == "airport_name"
    assert not [name for name in columns if name.startswith("_penstock")]
    dates = warehouse.query("SELECT min(flight_date), max(flight_date) FROM birds", limit=1).rows[0]
    assert (columns["flight_date"]["min"], columns["flight_date"]["max"]) == tuple(map(str, dates))
    (speeds,) = warehouse.query("SELECT count(speed_ias_in_knots) FROM birds", limit=1).rows[0]
    assert columns["speed_ias_in_knots"]["null_share"] == pytest.approx((1500 - speeds) / 1500, abs=0.0002)
    (sizes,) = warehouse.query("SELECT count(DISTINCT wildlife_size) FROM birds", limit=1).rows[0]
    assert columns["wildlife_size"]["distinct"] == pytest.approx(sizes, abs=1)
    shown = run(parts, profile, "birds").output
    assert "1,500 rows of 1 objects" in shown
    assert "1990-01-08" in shown


def test_a_profile_of_every_kind_of_column(parts: Parts, warehouse: Warehouse) -> None:
    """JSON, moments, booleans and derived columns too; a question is bounded in time, and reads only."""
    load(parts, "quakes/a.geojson", QUAKES, warehouse)
    found = profile_of(warehouse, "quakes", postgres=isinstance(warehouse, PostgresWarehouse))
    assert found is not None
    columns = {one.name: one for one in found.columns}
    assert found.rows == 250
    assert str(columns["at"].low).startswith("2018-02-05 21:47:22.59")
    assert columns["properties_felt"].empty == pytest.approx(222 / 250, abs=0.001)
    assert columns["geometry_coordinates"].empty == 0
    seen: list[str] = []

    class Counted:
        def query(self, sql: str, *, limit: int, seconds: float = 30) -> Any:
            seen.append(sql)
            assert seconds == 30
            return warehouse.query(sql, limit=limit, seconds=seconds)

    profile_of(Counted(), "quakes", postgres=isinstance(warehouse, PostgresWarehouse))  # type: ignore[arg-type]
    assert len(seen) == 4
