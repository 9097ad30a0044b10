"""What is wrong with a declaration's SQL is said without any data, with the line that says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.checks import Check, accepted, matches, not_null, row_count, unique
from penstock.cli.doctor import examine
from penstock.cli.faulty import refuse_faulty
from penstock.cli.main import cli
from penstock.cli.stack import running_stack
from penstock.declarations import Dataset, Ready
from penstock.errors import DeclarationError
from penstock.formats.declared import Fault, common, faults_of
from penstock.ledger import Ledger
from penstock.model import Column, Schema
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.source_lines import line_of
from tests.loading import another_project

KNOWN = Schema(
    version=1,
    columns=tuple(
        Column(name=name, original=name, type=kind)
        for name, kind in (("id", "BIGINT"), ("quantity", "BIGINT"), ("unit_price", "DOUBLE"), ("tags", "JSON"))
    ),
)


def found(known: Schema | None = KNOWN, **declared: Any) -> dict[str, str]:
    """Reasons by what is wrong."""
    return {" ".join(fault.where): fault.reason for fault in faults_of(Dataset(name="sales", **declared), known)}


def test_what_is_right_has_no_fault() -> None:
    """Everything that a run can do is fine: windows, comments, subqueries, later derived columns, penstock's own."""
    control = Ready(beside=".ctl")
    assert not found(
        columns={"id": "VARCHAR", "price": "DECIMAL(10, 2)", "kind": "ENUM('a', 'b')", "list": "VARCHAR[]"},
        derive={
            "total": "quantity * unit_price -- before tax",
            "id": "upper(id)",
            "first": "row_number() OVER (PARTITION BY id ORDER BY total) = 1",
            "above": "quantity > (SELECT avg(quantity) FROM source)",
            "tag": "tags->>'name'",
            "doubled": "list_transform(list, x -> x || x)",
        },
        where="total > 0",
        checks={
            "positive": "Quantity > 0",
            "given": not_null("id"),
            "once": unique("id", "total"),
            "known": accepted("kind", ["a", "b"]),
            "many": row_count(1),
            "sum": matches("sum(total)", "total"),
        },
        ready=control,
        select=("id", "total", "quantity", "kind"),
        report={"total": "sum(total)", "kinds": "histogram(kind)"},
        write="merge",
        key=["id"],
        order_by="total",
    )


def test_without_a_remembered_schema_columns_are_unknown_and_no_fault() -> None:
    """Nothing is known of the first object's columns: only what is wrong whatever they are is said."""
    assert not found(
        None,
        derive={"a": "geometry->>0", "b": "a + unheard_of", "c": "extract(year FROM b)", "d": "nested.field"},
        checks={"d": "list_contains(many, 1)", "e": "COLUMNS('x.*') > 0"},
        where="c > 0",
        select=("a", "other", "at"),
        report={"a": "sum(other)"},
        partitions=["day"],
        event_time="at",
    )


def test_a_delivery_has_its_columns_before_the_first_comes() -> None:
    """They are always the same."""
    assert "payloat" in found(None, format="delivery", derive={"a": "payloat->>'x'"})["derive a"]


@pytest.mark.parametrize("known", [KNOWN, None], ids=["remembered", "new"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quantity >", "it ends where DuckDB expects more"),
        ("quantity > > 0", 'Parser Error: syntax error at or near ">"'),
        ("quantity > 0; DROP TABLE x", "Parser Error"),
        ("1); SELECT (2", "more than that"),
        ("1), (2", "2 expressions"),
        ("1) FROM range(3) WHERE (true", "more than that"),
        ("nosuch(quantity) > 0", "Scalar Function with name nosuch does not exist"),
        ("quantity::DUBLE > 0", "Type with name DUBLE does not exist"),
        ("'open", "Parser Error: unterminated quoted string"),
        ("/* open", "Parser Error: unterminated /* comment"),
        ("sum(quantity) > 0", "an aggregate"),
        ("  ", "an SQL expression is a text"),
    ],
    ids=["cut", "doubled", "two-statements", "closed-statement", "two", "from", "function", "type", "quote", "comment",
         "aggregate", "empty"],
)  # fmt: skip
def test_an_expression_that_nothing_makes_right(known: Schema | None, text: str, says: str) -> None:
    """It is one expression over one row, with functions and types that there are, whatever the columns."""
    faults = found(known, derive={"a": text}, where=text)
    assert set(faults) == {"derive a", "where"}
    assert says in faults["derive a"]
    assert says in faults["where"]
    if text.strip():
        assert says in found(known, checks={"a": text})["checks a"]


def test_types_are_types() -> None:
    """A hint that is none is said, and what uses its column is not blamed for it."""
    faults = found(columns={"a": "DUBLE", "b": "BIGINT) , (1", "c": "DECIMAL(99,2)"}, derive={"d": "a + 1"})
    assert set(faults) == {"columns a", "columns b", "columns c"}
    assert "Type with name DUBLE does not exist" in faults["columns a"]


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    """Everything is said at once, each with what may have been meant."""
    faults = found(
        derive={"a": "quantiti + 1", "later": "last + 1", "last": "id"},
        checks={"given": not_null("unitprice"), "column": Check("id > 0", column="idd")},
        report={"sum": "sum(quantit)"},
        event_time="sold_at",
    )
    assert set(faults) == {
        "derive a", "derive later", "checks given", "checks column", "report sum", "event_time sold_at"
    }  # fmt: skip
    assert faults["derive a"] == (
        'Binder Error: Referenced column "quantiti" not found in FROM clause! Nearest: quantity'
    )
    assert "derived later: put it first" in faults["derive later"]
    assert "unit_price" in faults["checks given"]
    assert "There are: id, quantity, unit_price, tags" in faults["event_time sold_at"]


def test_one_fault_makes_no_others() -> None:
    """What is derived from something faulty is not blamed."""
    assert set(found(derive={"a": "quantity *", "b": "a + 1", "c": "b || 'x'"}, where="c > 'y'")) == {"derive a"}


def test_types_must_fit_where_they_are_known() -> None:
    """By the remembered types, or by hints."""
    assert "No function matches" in found(derive={"a": "quantity + DATE '2026-01-01' - [1]"})["derive a"]
    hinted = found(None, columns={"q": "BIGINT"}, derive={"a": "q * 2", "b": "a - [1]"})
    assert set(hinted) == {"derive b"}


def test_reports_and_object_checks_are_aggregates() -> None:
    """A column alone would be some row's."""
    faults = found(report={"a": "quantity"}, checks={"b": Check("quantity > 0", over="object")})
    assert set(faults) == {"report a", "checks b"}
    assert all("outside an aggregate" in reason for reason in faults.values())
    assert "over='object'" in found(checks={"c": "count(*) > 0"})["checks c"]


def test_columns_after_select() -> None:
    """What the key needs must be kept, and a report sees only what is."""
    faults = found(
        select=("id", "unheard"), report={"a": "sum(quantity)"}, write="merge", key=["id", "tags"], order_by="quantity"
    )
    assert set(faults) == {"select unheard", "report a", "key tags", "order_by quantity"}
    assert not found(
        select=("id",), report={"a": "sum(made)"}, write="merge", key=["made"], transform=lambda table: table
    )


def test_a_fault_must_hold_for_every_format() -> None:
    """The objects of a dataset may come in several formats, each with its schema: what suits one of them is right."""
    one, other = Fault(where=("derive", "a"), reason="x"), Fault(where=("derive", "b"), reason="y")
    assert common([[one, other], [other]]) == [other]
    assert common([[one], []]) == []


SOURCE = '''"""A dataset."""

from penstock import Dataset

CHECKS = {
    "positive": "quantity > 0",
}
DATASET = Dataset(
    name="sales",
    columns={"id": "BIGINT"},
    derive={
        "a": "1",
        "total": (
            "quantity"
            " * unit_price"
        ),
    },
    checks=CHECKS,
    report=dict(a="sum(a)"),
    key=[
        "id",
        "day",
    ],
    where="total >",
    write="merge",
)
'''


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (("derive", "total"), 13),
        (("derive", "unheard"), 11),
        (("checks", "positive"), 6),
        (("columns", "id"), 10),
        (("report", "a"), 19),
        (("key", "day"), 22),
        (("where",), 24),
        (("order_by", "x"), 8),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_line_that_says_it(where: tuple[str, ...], line: int) -> None:
    """A key's or an item's own line, wherever in the file; else the field's, else the call's."""
    assert line_of(SOURCE, where) == line


@pytest.mark.parametrize("source", ["", "x = (", "DATASET = make()"], ids=["empty", "broken", "made-elsewhere"])
def test_no_line(source: str) -> None:
    """Where the file has no such call there is none."""
    assert line_of(source, ("derive", "a")) is None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose files are importable in this test only."""
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    (tmp_path / "flows").mkdir()
    with another_project():
        yield tmp_path


def test_all_faults_of_a_project_at_once(folder: Path) -> None:
    """By file and line; a remembered schema says which columns there are."""
    (folder / "flows" / "sales.py").write_text(SOURCE)
    (folder / "flows" / "a.py").write_text(
        'from penstock import Dataset\nDATASET = Dataset(name="a",\n    derive={"x": "nosuch(1)"})\n'
    )
    settings = load_settings(folder)
    project = load_project(folder)
    with pytest.raises(DeclarationError) as raised:
        refuse_faulty(settings, project)
    lines = str(raised.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["flows/a.py:3", "flows/sales.py:24"]
    assert lines[0].startswith("flows/a.py:3: dataset a: derive x: Catalog Error: Scalar Function with name nosuch")

    ledger = Ledger(settings.ledger, project=settings.project)
    ledger.migrate(lock_folder=folder)
    ledger.schemas.remember("sales", "csv", KNOWN, cause="a test")
    ledger.close()
    with pytest.raises(DeclarationError) as raised:
        refuse_faulty(settings, project, [project.dataset("sales")])
    assert [line.split(": ")[0] for line in str(raised.value).splitlines()] == [
        "flows/sales.py:22",
        "flows/sales.py:24",
    ]


@pytest.mark.parametrize(
    "words",
    [["plan"], ["apply", "--yes"], ["preview", "--dataset", "a", "a.csv"]],
    ids=["plan", "apply", "preview"],
)
def test_commands_refuse_it(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """With file and line, before a server is asked for or anything is read."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PENSTOCK_PREFECT_API_URL", "http://127.0.0.1:9/api")
    (folder / "a.csv").write_text("x\n1\n")
    (folder / "flows" / "a.py").write_text('from penstock import Dataset\nDATASET = Dataset(name="a", where="x >")\n')
    result = CliRunner().invoke(cli, ["--project", str(folder), *words])
    assert result.exit_code == 1
    assert isinstance(result.exception, DeclarationError)
    assert str(result.exception).startswith("flows/a.py:2: dataset a: where: it ends where")


def test_doctor_says_so(folder: Path) -> None:
    """As what is to be looked at in the project."""
    (folder / "flows" / "a.py").write_text('from penstock import Dataset\nDATASET = Dataset(name="a", where="x >")\n')
    (found,) = [one for one in examine(load_settings(folder)) if one.part == "project"]
    assert not found.ok
    assert found.says.startswith("flows/a.py:2: dataset a: where")


def test_nothing_is_started_on_it(folder: Path) -> None:
    """`up` ends before its first process."""
    (folder / "flows" / "a.py").write_text('from penstock import Dataset\nDATASET = Dataset(name="a", where="x >")\n')
    said: list[str] = []
    with pytest.raises(DeclarationError, match=r"^flows/a\.py:2"), running_stack(folder, say=said.append, env={}):
        pass
    assert said == []
