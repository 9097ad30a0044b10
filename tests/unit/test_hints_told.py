"""What a preview says of type hints, and of expressions that do not fit a first file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.preview import preview
from penstock.cli.previewing import Preview, Target, look
from penstock.declarations import Dataset
from penstock.dialects import Csv
from penstock.model import Column, Schema, State

FOUND = Schema(
    version=3,
    columns=(
        Column(name="order_nr", original="order_nr", type="BIGINT"),
        Column(name="amount", original="amount", type="VARCHAR"),
    ),
)


def _seen(tmp_path: Path, content: str, known: Schema | None = None, **declared: Any) -> Preview:
    path = tmp_path / "a.csv"
    path.write_text(content)
    dataset = Dataset(name="orders", **declared)
    return look(path, Target(dataset=dataset, why="as asked", key="orders/a.csv"), lambda form: known)


def test_a_hint_overrides_what_is_remembered(tmp_path: Path) -> None:
    """The column is of the type that is said, and the note says what becomes of the table's."""
    hints = {"order_nr": "VARCHAR", "amount": "BIGINT"}
    seen = _seen(tmp_path, "order_nr,amount\nA-1,1\n", FOUND, columns=hints)
    assert [(one.type, one.typed) for one in seen.columns] == [
        ("VARCHAR", "hint, BIGINT until now"),
        ("BIGINT", "hint, VARCHAR until now"),
    ]
    assert seen.notes == [
        "columns: order_nr is read as VARCHAR from now on; in the table it becomes VARCHAR",
        "columns: amount is read as BIGINT from now on; in the table it stays VARCHAR",
    ]


def test_a_hint_for_no_column(tmp_path: Path) -> None:
    """Its nearest column is named; a hint that is right is not spoken of."""
    seen = _seen(tmp_path, "order_nr,amount\n1,1\n", columns={"amuont": "DOUBLE", "amount": "DOUBLE"})
    assert seen.notes == ["columns: no column is called amuont; nearest amount"]


def test_before_the_first_load_a_wrong_column_is_found_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file, line and the nearest name, as where a schema is remembered."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "nearly.py").write_text(
        'from penstock import Check, Dataset\n\nDATASET = Dataset(\n    name="nearly",\n'
        '    checks={"positive": Check("amuont > 0")},\n)\n'
    )
    (tmp_path / "a.csv").write_text("order_nr,amount\n1,1\n")
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / ".penstock"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("PENSTOCK_S3_ENDPOINT", "PENSTOCK_LEDGER_URL", "PENSTOCK_INBOX"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(preview, [str(tmp_path / "a.csv"), "--dataset", "nearly", "--json"], obj=tmp_path)
    facts = json.loads(result.output)
    assert (result.exit_code, facts["verdict"]) == (1, "quarantined")
    assert "flows/nearly.py:5: dataset nearly: checks positive: " in facts["reason"]
    assert facts["reason"].endswith("Nearest: amount")


@pytest.mark.parametrize("declared", [{"where": "state"}, {"checks": {"known": "state"}}], ids=["where", "check"])
def test_an_expression_that_is_no_condition_is_named(tmp_path: Path, declared: dict[str, Any]) -> None:
    """With its type, where the data cannot be taken for true or false."""
    seen = _seen(tmp_path, "state\nnew\npaid\n", **declared)
    what = "where" if "where" in declared else "check known"
    assert seen.state is State.QUARANTINED
    assert f"{what} 'state', which is VARCHAR and should be true or false, fails on the data" in str(seen.reason)


@pytest.mark.parametrize(
    ("cells", "kind", "read_as"),
    [
        (["1,234.50", "7", "12.25"], "DOUBLE", [1234.5, 7.0, 12.25]),
        (["-1,234,567", "7"], "BIGINT", [-1234567, 7]),
        (["1,234.50", "12,5"], "VARCHAR", ["1,234.50", "12,5"]),
        (["1,234", "007"], "VARCHAR", ["1,234", "007"]),
        (["1e3", "2.5"], "DOUBLE", [1000.0, 2.5]),
    ],
    ids=["fractions", "whole", "no-thousands", "zeros", "none"],
)
def test_a_declared_point_takes_commas_for_thousands(
    tmp_path: Path, cells: list[str], kind: str, read_as: list[Any]
) -> None:
    """As a declared comma takes dots, and only groups of three."""
    seen = _seen(tmp_path, "n,m\n" + "".join(f'"{cell}",x\n' for cell in cells), csv=Csv(decimal="."))
    assert seen.result is not None
    assert seen.columns[0].type == kind
    assert seen.result.rows.column("n").to_pylist() == read_as


def test_thousands_in_a_column_whose_type_is_said_or_known(tmp_path: Path) -> None:
    """They are read by a hint, and a column of whole numbers widens by them; unsaid they stay put aside."""
    content = 'amount,m\n"1,234.50",x\n2.5,x\n"12,34",x\n'
    seen = _seen(tmp_path, content, csv=Csv(decimal="."), columns={"amount": "DOUBLE"}, threshold=0.5)
    assert seen.result is not None
    assert seen.result.rows.column("amount").to_pylist() == [1234.5, 2.5]
    assert seen.result.rejected.column("reason").to_pylist() == ["amount: not DOUBLE: 12,34"]
    known = _seen(tmp_path, "amount,m\n1,x\n", csv=Csv(decimal=".")).result
    assert known is not None
    wider = _seen(tmp_path, 'amount,m\n"1,234.50",x\n', known.schema, csv=Csv(decimal=".")).result
    assert wider is not None
    assert wider.rows.column("amount").to_pylist() == [1234.5]
    unsaid = _seen(tmp_path, content, columns={"amount": "DOUBLE"}, threshold=0.1).result
    assert unsaid is not None
    assert unsaid.rows.column("amount").to_pylist() == [2.5]
