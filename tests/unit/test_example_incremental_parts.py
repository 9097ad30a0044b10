"""What examples/incremental makes of a till's file, and when it looks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType

import pyarrow as pa
import pytest

from penstock.project import Project, load_project
from tests.acceptance.running import ROOT
from tests.loading import another_project, module_at

HERE = ROOT / "examples/incremental"


@pytest.fixture(scope="module")
def units() -> ModuleType:
    """Its module of pure functions."""
    return module_at(HERE / "flows/_units.py")


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The example's declarations; the repository's own are imported under the same names."""
    monkeypatch.delenv("LOOK_SECONDS", raising=False)
    with another_project():
        yield load_project(HERE)


def test_a_files_sales_are_summed_by_product(units: ModuleType) -> None:
    """Units and revenue of each product, in the products' order, to the cent."""
    sales = pa.table({"product_id": [2, 1, 2], "quantity": [1, 2, 3], "unit_price": [0.1, 2.0, 1.1]})
    assert units.per_product(sales).to_pylist() == [
        {"product_id": 1, "units": 2, "revenue": 4.0},
        {"product_id": 2, "units": 4, "revenue": 3.4},
    ]


@pytest.mark.parametrize("columns", [["product_id", "quantity", "unit_price"], []], ids=["known", "unknown"])
def test_no_sales_are_no_units(units: ModuleType, columns: list[str]) -> None:
    """Of a file without good rows there are none, also where not even its columns are known."""
    sales = pa.table({name: pa.array([], pa.int64()) for name in columns})
    assert units.per_product(sales).num_rows == 0


def test_a_runs_result_says_what_it_did(units: ModuleType) -> None:
    """Skipped only where nothing was taken."""
    assert units.counted(objects=0, rows=0, refused=0)["outcome"] == "skipped"
    assert units.counted(objects=2, rows=9, refused=0) == {
        "outcome": "processed",
        "objects": 2,
        "rows": 9,
        "refused": 0,
    }
    assert units.counted(objects=0, rows=0, refused=1)["outcome"] == "processed"


def test_time_starts_it_and_nothing_else(project: Project) -> None:
    """Every 45 seconds, in the place of `ingest`, and without an automation."""
    (own,) = project.own_flows
    assert own.declared.every == timedelta(seconds=45)
    assert project.consumers == {"units_sold": "count-units"}
    assert project.automations == ()
