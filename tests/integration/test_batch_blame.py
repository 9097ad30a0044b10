"""Who is blamed when a load fails: the object whose rows do it, and nobody for what the machine does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.flows.ingest import _let_go
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
        _let_go(works.parts.ledger, lease, error, lease.holder)
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
