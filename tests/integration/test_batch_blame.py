"""Who is blamed when a load fails: the object whose rows do it, and nobody for what the machine does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.flows.working import let_go
from penstock.model import State
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.conformance.warehouses import postgres_bench
from tests.integration.parts import SALES, parts_in
from tests.integration.test_batch import Works, csv_of, works_on
from tests.real_store import RealStore, real_store


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


def _run(works: Works) -> str:
    """One run, with a failure let go of as the flow does; returns the failure's name."""
    lease = works.acquire()
    try:
        while refs := works.claim(lease):
            batch = works.batch(lease, refs)
            batch.fetch()
            batch.check()
            batch.load()
            batch.settle()
            batch.clean()
        assert works.parts.ledger.work.finish(lease)
    except Exception as error:
        let_go(works.parts.ledger, lease, error, lease.holder)
        return type(error).__name__
    finally:
        works.parts.clock.advance(seconds=61)
    return ""


def test_rows_that_postgres_does_not_take_are_quarantined_in_the_end(tmp_path: Path, embedded: RealStore) -> None:
    """The object whose value PostgreSQL cannot hold is blamed, told apart and put aside; its neighbours are loaded."""
    dataset = Dataset(name="sales", ordered=False)
    with postgres_bench(tmp_path) as bench, parts_in(tmp_path, embedded, datasets=(dataset,), fake_time=True) as parts:
        works = works_on(parts, dataset)
        works.warehouse = cast(DuckDBWarehouse, bench.warehouse)
        parts.arrive("sales/first.json", b'[{"id": 0, "j": [1]}]')
        assert _run(works) == ""
        parts.arrive("sales/bad.json", b'[{"id": 1, "j": [1e400000]}]')
        parts.arrive("sales/good.json", b'[{"id": 2, "j": [2]}]')
        runs = [_run(works) for _ in range(8)]
        assert set(runs) == {"DoesNotFit", ""}
        (bad,), (good,) = parts.stories("sales/bad.json"), parts.stories("sales/good.json")
        assert (bad.state, good.state) == (State.QUARANTINED, State.LOADED)
        assert "overflows numeric" in str(bad.reason)
        assert bench.warehouse.count("sales") == 2


def test_memory_that_runs_out_blames_no_object(
    tmp_path: Path, embedded: RealStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow's MemoryError, which is an ArrowException too, ends the run; often as it comes, nothing is quarantined."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        works = works_on(parts, SALES)
        parts.arrive("sales/a.csv", csv_of(1))

        def fail(*_: Any, **__: Any) -> None:
            raise pa.ArrowMemoryError("malloc of size 64 failed")

        with monkeypatch.context() as patch:
            patch.setattr(formats, "read", fail)
            assert {_run(works) for _ in range(7)} == {"ArrowMemoryError"}
        assert parts.states("sales/a.csv") == [State.PENDING]
        assert _run(works) == ""
        assert parts.states("sales/a.csv") == [State.LOADED]


def test_a_key_that_no_sql_can_say_blames_its_object(tmp_path: Path, embedded: RealStore) -> None:
    """Read first, alone or with others, the object goes to quarantine and its neighbours are loaded."""
    bad = b'[{"id": 1, "A\\u0000b": 2}]'
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        works = works_on(parts, SALES)
        parts.arrive("sales/0.json", bad)
        for key, content in (("1", b'[{"id": 1}]'), ("2", bad), ("3", b'[{"id": 3}]')):
            parts.arrive(f"sales/{key}.json", content)
        assert _run(works) == ""
        parts.arrive("sales/4.json", bad)
        parts.arrive("sales/5.json", b'[{"id": 5}]')
        assert _run(works) == ""
        states = [parts.states(f"sales/{number}.json") for number in range(6)]
        assert states == [[State.LOADED if number in (1, 3, 5) else State.QUARANTINED] for number in range(6)]
        assert "U+0000" in str(parts.stories("sales/4.json")[0].reason)


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (duckdb.ParserException("syntax error"), True),
        (duckdb.NotImplementedException("no such cast"), True),
        (duckdb.OutOfMemoryException("failed to pin block"), False),
        (duckdb.IOException("Could not write: No space left on device"), False),
        (duckdb.FatalException("the database was invalidated"), False),
    ],
    ids=["parser", "not-implemented", "memory", "disk", "fatal"],
)
def test_what_duckdb_does_not_take_blames_its_object(
    tmp_path: Path, embedded: RealStore, monkeypatch: pytest.MonkeyPatch, error: duckdb.Error, blamed: bool
) -> None:
    """An object for which DuckDB fails takes no other along; a machine or a DuckDB that fails is no object's fault."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        works = works_on(parts, SALES)
        parts.arrive("sales/bad.csv", csv_of(1))
        parts.arrive("sales/good.csv", csv_of(2))
        real = formats.infer

        def fail(path: Path, key: str, dataset: Dataset) -> Any:
            if key.endswith("bad.csv"):
                raise error
            return real(path, key, dataset)

        with monkeypatch.context() as patch:
            patch.setattr(formats, "infer", fail)
            assert (_run(works) == "") is blamed
        states = [State.QUARANTINED, State.LOADED] if blamed else [State.PENDING, State.PENDING]
        assert [*parts.states("sales/bad.csv"), *parts.states("sales/good.csv")] == states


def test_a_key_with_a_path_that_no_sql_can_say_blames_its_object(tmp_path: Path, embedded: RealStore) -> None:
    """The object goes to quarantine, and what came with it is loaded."""
    dataset = Dataset(name="sales", partitions=["day"])
    with parts_in(tmp_path, embedded, datasets=(dataset,), fake_time=True) as parts:
        works = works_on(parts, dataset)
        parts.arrive("sales/day=%00/a.csv", csv_of(1))
        parts.arrive("sales/day=2026/b.csv", csv_of(2))
        assert _run(works) == ""
        assert parts.states("sales/day=%00/a.csv") == [State.QUARANTINED]
        assert parts.states("sales/day=2026/b.csv") == [State.LOADED]
