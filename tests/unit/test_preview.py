"""What `penstock preview` says of a file, and that it leaves no trace."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.text import Text

from penstock.checks import Check, matches, row_count
from penstock.cli.preview import preview
from penstock.cli.previewing import Preview, Target, checks_in, first_rows, look, preview_facts, target_of
from penstock.cli.show_preview import one_line, preview_lines, row_lines, text_table
from penstock.declarations import Dataset, Ready
from penstock.errors import DeclarationError, Unreadable
from penstock.model import Column, Schema, State

ROOT = Path(__file__).parents[2]
SALES = Dataset(
    name="sales",
    columns={"quantity": "BIGINT"},
    checks={"positive": "quantity > 0", "small": "quantity < 100"},
    derive={"double": "quantity * 2"},
    threshold=0.5,
)
DATASETS = (SALES, Dataset(name="weather", prefix="met/daily/"))

_FLOW = """
from penstock import Dataset
DATASET = Dataset(name="sales", checks={"positive": "quantity > 0"}, threshold=0.5)
"""


def seen(path: Path, content: bytes, dataset: Dataset = SALES, known: Schema | None = None) -> Preview:
    path.write_bytes(content)
    return look(path, Target(dataset=dataset, why="as asked", key=f"sales/{path.name}"), lambda form: known)


def told(found: Preview, *, width: int = 100, rows: int = 5) -> str:
    """What stands on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, emoji=False, highlight=False)
    for line in preview_lines(found, file="a.csv", rows=rows, width=width, said="schema inferred"):
        console.print(line, soft_wrap=isinstance(line, Text))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("path", "key", "asked", "dataset", "known_as"),
    [
        ("/export/a.csv", None, "sales", "sales", "sales/a.csv"),
        ("/in/sales/2026/a.csv", "sales/2026/a.csv", "sales", "sales", "sales/2026/a.csv"),
        ("/in/other/a.csv", "other/a.csv", "sales", "sales", "sales/a.csv"),
        ("/in/met/daily/a.csv", "met/daily/a.csv", None, "weather", "met/daily/a.csv"),
        ("/home/x/sales/a.csv", None, None, "sales", "sales/a.csv"),
        ("/home/x/daily/2026/a.csv", None, None, "weather", "met/daily/2026/a.csv"),
    ],
    ids=["asked", "asked-in-inbox", "asked-for-another", "by-prefix", "by-folder", "by-folder-above"],
)
def test_which_dataset_takes_a_file(path: str, key: str | None, asked: str | None, dataset: str, known_as: str) -> None:
    """The one asked for, else the prefix below the inbox, else a folder's name; and the key it would have."""
    found = target_of(PurePosixPath(path), DATASETS, key=key, asked=asked)
    assert (found.dataset.name, found.key) == (dataset, known_as)


def test_where_nothing_tells_the_dataset() -> None:
    """The datasets are named, and the command that makes one."""
    with pytest.raises(DeclarationError, match=r"there are: sales, weather\. .*init-dataset '/an export/a.csv'"):
        target_of(PurePosixPath("/an export/a.csv"), DATASETS, key=None, asked=None)
    with pytest.raises(DeclarationError, match="no dataset 'sale'; there are: sales, weather"):
        target_of(PurePosixPath("/export/a.csv"), DATASETS, key=None, asked="sale")
    with pytest.raises(Unreadable, match="no dataset takes 'met/'"):
        target_of(PurePosixPath("/in/met/a.csv"), DATASETS, key="met/a.csv", asked=None)


@pytest.mark.parametrize(
    ("reason", "failed"),
    [
        ("check positive", {"positive"}),
        ("quantity: not BIGINT: x; check positive; check small", {"positive", "small"}),
        ("check positive; check small", {"positive", "small"}),
        ("note: not BIGINT: a check small thing; check positive", {"positive"}),
        ("quantity: not BIGINT: check", set()),
        ("quantity: not BIGINT: recheck positive", set()),
        ("check positively; check small", {"small"}),
        ("not a record", set()),
    ],
    ids=[
        "one",
        "behind-a-cast",
        "both",
        "words-in-a-value",
        "half-a-word",
        "end-of-a-value",
        "longer-name",
        "no-check",
    ],
)
def test_checks_that_a_reason_names(reason: str, failed: set[str]) -> None:
    """The checks at the end of a reason, whatever words the value before them holds."""
    assert checks_in(reason, ["positive", "small"]) == failed


def test_what_else_a_dataset_declares(tmp_path: Path) -> None:
    """Checks with what they do, over rows and over the file, rows passed over, and columns by path and function."""
    dataset = Dataset(
        name="sales",
        where="quantity <> 9",
        write="merge",
        key=["item"],
        partitions=["day"],
        columns={"day": "DATE"},
        ready=Ready(beside=".ctl"),
        checks={
            "small": Check("quantity < 2", "warn"),
            "enough": row_count(2),
            "complete": matches("count(*)", "rows"),
        },
        transform=lambda rows: rows.append_column("extra", rows["quantity"]),
    )
    target = Target(dataset=dataset, why="as asked", key="sales/day=2026-03-01/a.csv")
    path = tmp_path / "a.csv"
    path.write_bytes(b"item,quantity\na,1\nb,2\n,3\nc,9\n")
    alone = look(path, target, lambda form: None)
    assert (alone.state, alone.filtered) == (State.LOADED, 1)
    assert alone.notes == [
        "there is no control file a.csv.ctl beside it, without which a run would refuse it: not asked"
    ]
    assert {one.name: (one.made_from, one.typed) for one in alone.columns} == {
        "item": ("item", "inferred"),
        "quantity": ("quantity", "inferred"),
        "day": ("day=… in its key", "path"),
        "extra": ("transform", "transform"),
    }
    (tmp_path / "a.csv.ctl").write_text("rows=5")
    found = look(path, target, lambda form: None)
    assert (found.state, found.reason) == (
        State.QUARANTINED,
        "check complete: count(*) is 2, and its control file says rows 5",
    )
    shown = " ".join(told(found, width=150).split())
    assert "small quantity < 2 a warning 2 " in shown
    assert "enough count(*) >= 2 quarantine holds " in shown
    assert "complete count(*) = its rows quarantine count(*) is 2, and its control file says rows 5" in shown
    assert "1 of 4 rows are passed over by where" in shown
    facts = preview_facts(found, 1)
    assert facts["filtered"] == 1
    assert facts["first_rejected"][0] | {"raw": None} == {
        "row": 3,
        "line": None,
        "reason": "check key",
        "raw": None,
        "column": "item",
        "check": "key",
    }


def test_columns_rows_checks_and_verdict(tmp_path: Path) -> None:
    """Where each column is from, what is rejected and why, how many rows fail each check."""
    found = seen(tmp_path / "a.csv", b"Item,Quantity,when\na,1,2026-01-01\nb,0,\nc,x,\nd,2,\ne,3,\n")
    assert found.state is State.LOADED
    columns = {one.name: (one.type, one.made_from, one.typed, one.empty) for one in found.columns}
    assert columns == {
        "item": ("VARCHAR", "Item", "inferred", 0),
        "quantity": ("BIGINT", "Quantity", "hint", 0),
        "when": ("DATE", "when", "inferred", 2),
        "double": ("BIGINT", "= quantity * 2", "derived", 0),
    }
    assert {one.name: one.failing for one in found.checks} == {"positive": 2, "small": 1}
    facts = preview_facts(found, 1)
    assert facts["first_rows"] == [{"item": "a", "quantity": 1, "when": "2026-01-01", "double": 2}]
    assert (facts["total"], facts["good"], facts["rejected"]) == (5, 3, 2)
    assert facts["first_rejected"][0]["line"] == 3
    shown = told(found)
    assert "2 of 5 rows are rejected" in shown
    assert "line 4: quantity: not BIGINT: x" in shown
    assert "\n  c,x,\n" in shown


def test_under_the_threshold_it_would_go_to_quarantine(tmp_path: Path) -> None:
    """With the reason that a run would give."""
    found = seen(tmp_path / "a.csv", b"item,quantity\na,1\nb,0\nc,0\n")
    assert found.state is State.QUARANTINED
    assert found.reason == "2 of 3 rows are bad, and at least 50% must be good: check positive (2)"
    assert f"It would go to quarantine: {found.reason}. Nothing was loaded now." in told(found)


@pytest.mark.parametrize(
    ("name", "content", "state", "reason"),
    [
        ("a.csv", b"", State.EMPTY, "it has 0 bytes"),
        ("a.csv", b"item,quantity\n", State.EMPTY, "it has no records"),
        ("a.json", b"[]", State.EMPTY, "it has no records"),
        ("a.json", b"{", State.QUARANTINED, "JSON"),
        ("a.csv.gz", b"\x1f\x8b\x08\x00broken", State.QUARANTINED, "broken gzip"),
        ("a.xyz", b"a", State.QUARANTINED, "the format is not known by the key's suffix"),
        ("a.parquet", b"PAR1", State.QUARANTINED, "arquet"),
    ],
    ids=["no-bytes", "header-only", "no-records", "half-json", "half-gzip", "no-suffix", "half-parquet"],
)
def test_what_cannot_be_loaded(tmp_path: Path, name: str, content: bytes, state: State, reason: str) -> None:
    """What it is and why, never an exception; and it can be shown on a terminal and to a program."""
    found = seen(tmp_path / name, content, Dataset(name="sales"))
    assert found.state is state
    assert reason in (found.reason or "")
    assert reason in told(found)
    json.dumps(preview_facts(found, 5), allow_nan=False)


def test_a_first_file_that_does_not_fit_the_declaration(tmp_path: Path) -> None:
    """Goes to quarantine, as in a run; by a remembered schema it is the declaration that is wrong."""
    wrong = Dataset(name="sales", checks={"positive": "quantety > 0"})
    found = seen(tmp_path / "a.csv", b"quantity\n1\n", wrong)
    assert found.state is State.QUARANTINED
    assert "check positive 'quantety > 0'" in (found.reason or "")
    known = Schema(version=1, columns=(Column(name="quantity", original="quantity", type="BIGINT"),))
    with pytest.raises(DeclarationError, match="check positive 'quantety > 0'"):
        seen(tmp_path / "b.csv", b"quantity\n1\n", wrong, known)


KNOWN = Schema(
    version=3,
    columns=(
        Column(name="item", original="item", type="VARCHAR"),
        Column(name="quantity", original="quantity", type="BIGINT"),
    ),
    dialect={"delim": ",", "quote": '"', "escape": '"', "header": True, "skip": 0},
)


@pytest.mark.parametrize(
    ("schema", "state", "typed", "rescued"),
    [
        ("rescue", State.LOADED, {"item": "remembered", "quantity": "widened from BIGINT"}, ["colour"]),
        (
            "evolve",
            State.LOADED,
            {"item": "remembered", "quantity": "widened from BIGINT", "colour": "inferred, a new column"},
            [],
        ),
        ("freeze", State.QUARANTINED, {"item": "remembered", "quantity": "widened from BIGINT"}, ["colour"]),
    ],
    ids=["rescue", "evolve", "freeze"],
)
def test_a_remembered_schema(
    tmp_path: Path, schema: Any, state: State, typed: dict[str, str], rescued: list[str]
) -> None:
    """Is what the file is read by: columns are remembered, widened, added or rescued as the dataset says."""
    content = gzip.compress(b"item,quantity,colour\na,1.5,red\n")
    found = seen(tmp_path / "a.csv.gz", content, Dataset(name="sales", schema=schema), KNOWN)
    assert found.state is state
    assert {one.name: one.typed for one in found.columns} == typed
    assert list(found.rescued_names) == rescued
    assert (tmp_path / "a.csv.gz").read_bytes() == content, "a preview must leave the file as it is"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.gz"]


def test_values_that_python_or_json_have_no_word_for(tmp_path: Path) -> None:
    """Are text for a program and on the terminal: late dates, nanoseconds, NaN, bytes."""
    rows = pa.table(
        {
            "late": pa.array([2**31 - 10**7], pa.date32()),
            "fine": pa.array([1], pa.timestamp("ns")),
            "no_number": pa.array([float("nan")]),
            "bytes": pa.array([b"\x00\xff"]),
            "when": pa.array([datetime(2026, 1, 1)], pa.timestamp("us", tz="UTC")),  # noqa: DTZ001
            "nested": pa.array([{"a": [1, None]}]),
        }
    )
    pa.parquet.write_table(rows.drop_columns(["late"]), tmp_path / "a.parquet")
    found = seen(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes(), Dataset(name="sales"))
    assert found.state is State.LOADED
    (row,) = json.loads(json.dumps(preview_facts(found, 1)["first_rows"], allow_nan=False))
    assert row["no_number"] == "nan"
    assert row["bytes"] == "\\x00\\xFF"
    assert row["when"].startswith("2026-01-01 00:00:00")
    assert "1970-01-01 00:00:00.000000001" in told(found)
    assert first_rows(rows.select(["late"]), 1)[0]["late"].startswith("58")


def test_a_terminal_gets_no_orders_from_the_data(tmp_path: Path) -> None:
    """Escape sequences, line ends and rich's markup in names, rows and rejected rows are shown, not obeyed."""
    found = seen(
        tmp_path / "a.csv",
        b'item[bold],quantity\n"\x1b[2J[red]x\\[/red]\nnext",1\n"\x1b]0;title\x07",x\n',
    )
    shown = told(found, width=200)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2J[red]x\\[/red]\\nnext" in shown
    assert "item[bold]" in shown


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_every_width_shows_every_column(tmp_path: Path, width: int) -> None:
    """A table where it fits, else name and value line by line; nothing is wider than the terminal."""
    names = [f"column_number_{number}" for number in range(12)]
    row = dict.fromkeys(names, "value" * 10)
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    for line in row_lines([row], width):
        console.print(line)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert shown.replace("\n", "").count("column_") >= len(names) or width < 80
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert text_table(["a"], [[1]]).row_count == 1


def test_many_columns(tmp_path: Path) -> None:
    """Are counted on the terminal and whole for a program."""
    names = [f"c{number}" for number in range(300)]
    found = seen(tmp_path / "a.csv", (",".join(names) + "\n" + ",".join("1" * 300) + "\n").encode(), DATASETS[1])
    assert len(preview_facts(found, 1)["columns"]) == 300
    assert "… and 100 more columns; all of them: --json" in told(found)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with the dataset sales, that nothing runs for."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "sales.py").write_text(_FLOW)
    (tmp_path / "inbox" / "sales").mkdir(parents=True)
    for name in ("PENSTOCK_S3_ENDPOINT", "PENSTOCK_LEDGER_URL", "PENSTOCK_INBOX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / ".penstock"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kept = list(sys.path)
    there = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "flows"}
    yield tmp_path
    sys.path[:] = kept
    for name in [name for name in sys.modules if name.partition(".")[0] == "flows"]:
        del sys.modules[name]
    sys.modules.update(there)


def run(project: Path, *arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(preview, arguments, obj=project, input=stdin)


def test_a_preview_leaves_no_trace(project: Path) -> None:
    """No ledger, store or folder is made; what was there is as it was."""
    (project / "inbox" / "sales" / "a.csv").write_bytes(b"quantity\n1\n")
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    result = run(project, str(project / "inbox" / "sales" / "a.csv"))
    assert result.exit_code == 0, result.output
    assert "dataset sales (by its prefix sales/)" in result.output
    assert "schema inferred from this file: there is no ledger yet" in result.output
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_exit_codes(project: Path) -> None:
    """0 it would be loaded, 1 it would go to quarantine, 2 wrong usage."""
    (project / "sales").mkdir()
    good, bad = project / "sales" / "good.csv", project / "sales" / "bad.csv"
    good.write_bytes(b"quantity\n1\n")
    bad.write_bytes(b"quantity\n0\n")
    assert run(project, str(good)).exit_code == 0
    assert run(project, str(bad), "--json").exit_code == 1
    for wrong in ([str(project)], [str(project / "none.csv")], ["-"], ["s3://landing"]):
        result = run(project, *wrong)
        assert result.exit_code == 2 or isinstance(result.exception, Exception)
        assert result.exit_code != 0
    stray = project / "inbox" / "stray.csv"
    stray.write_bytes(b"quantity\n1\n")
    assert isinstance(run(project, str(stray)).exception, Unreadable)


def test_standard_input_has_a_name(project: Path) -> None:
    """Which gives its dataset and format; facts for a program come whole."""
    result = run(project, "-", "--name", "sales/a.csv.gz", "--json", stdin=gzip.compress(b"quantity\n1\n-1\n"))
    facts = json.loads(result.output)
    assert (facts["dataset"], facts["format"], facts["verdict"]) == ("sales", "csv", "loaded")
    positive = {"name": "positive", "predicate": "quantity > 0", "failing": 1}
    assert facts["checks"] == [positive | {"severity": "row", "over": "row", "told": None}]
    assert facts["schema"]["from"] == "file"
    assert run(project, "-", "--name", "a.tsv", "--dataset", "sales", stdin=b"quantity\n1\n").exit_code == 0


def test_another_name_reads_it_otherwise(project: Path) -> None:
    """What has the wrong suffix can be called something else."""
    (project / "export.txt").write_bytes(b"quantity\n1\n")
    unknown = run(project, str(project / "export.txt"), "--dataset", "sales")
    assert unknown.exit_code == 1
    assert "known are .csv" in unknown.output
    named = run(project, str(project / "export.txt"), "--dataset", "sales", "--name", "export.csv")
    assert named.exit_code == 0, named.output


def test_a_ledger_that_cannot_be_read_is_said(project: Path) -> None:
    """And the schema is inferred."""
    (project / ".penstock").mkdir()
    (project / ".penstock" / "ledger.db").write_bytes(b"")
    (project / "a.csv").write_bytes(b"quantity\n1\n")
    result = run(project, str(project / "a.csv"), "--dataset", "sales")
    assert result.exit_code == 0
    assert "since the ledger cannot be read: the ledger is empty" in result.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("file", "dataset", "rows"),
    [
        ("birdstrikes.csv", "bird_strikes", 1500),
        ("seattle-weather.csv", "weather", 1461),
        ("earthquakes.geojson", "earthquakes", 250),
    ],
    ids=["birds", "weather", "earthquakes"],
)
def test_the_files_that_ship(file: str, dataset: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be loaded whole by its dataset."""
    monkeypatch.setenv("PENSTOCK_HOME", "/nonexistent/penstock")
    result = run(ROOT, str(ROOT / "examples" / "data" / file), "--dataset", dataset)
    assert result.exit_code == 0, result.output
    assert f"It would be loaded: {rows:,} rows. Nothing was loaded now." in result.output
