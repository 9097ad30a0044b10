"""`penstock init-dataset`: the file it writes, and what it refuses."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.dataset_file import (
    Hint,
    automation_line,
    automation_source,
    dataset_source,
    name_from,
    refuse_overlap,
)
from penstock.cli.init_dataset import init_dataset
from penstock.cli.preview import preview
from penstock.cli.shaky import Texts, hint_for, reserved_words
from penstock.declarations import Dataset
from penstock.dialects import Csv
from penstock.errors import DeclarationError, PenstockError, Unreadable
from penstock.model import NAME, Column
from penstock.project import load_project
from tests.examples import examples

ROOT = Path(__file__).parents[2]
ORDERS = b"id,zip,amount,paid on,note\n1,01234,1.50,2026-01-31,x\n2,99999,2.25,2026-02-01,y\n"

_OTHER = 'from penstock import Dataset\nDATASET = Dataset(name="shop", prefix="shop/in/")\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with one dataset, `shop`."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "shop.py").write_text(_OTHER)
    for name in ("PENSTOCK_LEDGER_URL", "PENSTOCK_INBOX", "PENSTOCK_PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / ".penstock"))
    monkeypatch.setenv("PENSTOCK_PROJECT", "demo")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kept = list(sys.path)
    there = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_projects(name)}
    yield tmp_path
    sys.path[:] = kept
    for name in [name for name in sys.modules if _is_projects(name)]:
        del sys.modules[name]
    sys.modules.update(there)


def _is_projects(name: str) -> bool:
    return name.partition(".")[0] in ("flows", "automations")


def init(project: Path, *arguments: str) -> Result:
    importlib.invalidate_caches()
    return CliRunner().invoke(init_dataset, arguments, obj=project)


def written(project: Path, content: bytes, filename: str = "orders.csv", *arguments: str) -> Dataset:
    """What the command declares for an example."""
    (project / filename).write_bytes(content)
    before = {dataset.name for dataset in load_project(project, only=["flows"]).datasets}
    result = init(project, str(project / filename), *arguments)
    assert result.exit_code == 0, result.output or result.exception
    importlib.invalidate_caches()
    (new,) = [one for one in load_project(project, only=["flows"]).datasets if one.name not in before]
    return new


def loads(project: Path, filename: str, dataset: str) -> str:
    """What a preview of the file says, which must be that it would be loaded."""
    result = CliRunner().invoke(preview, [str(project / filename), "--dataset", dataset], obj=project)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("orders.csv", "orders"),
        ("Orders 2026-11-01.csv.gz", "orders"),
        ("2026-11_orders.v2.ndjson", "orders"),
        ("seattle-weather.csv", "seattle_weather"),
        ("usgs-earthquakes-week.geojson", "usgs_earthquakes_week"),
        ("Größen & Maße.parquet", "gro_en_ma_e"),
        ("q3.csv", "q3"),
        ("x" * 100 + ".csv", "x" * 50),
    ],
    ids=["plain", "dated", "begins-with-a-date", "dash", "geojson", "other-letters", "number-in-a-word", "long"],
)
def test_the_name_comes_from_the_file(filename: str, name: str) -> None:
    """Without suffix, date and number."""
    assert name_from(filename) == name


@pytest.mark.parametrize("filename", ["2026-11-01.csv", ".csv", "数据.csv"], ids=["date", "nothing", "no-latin"])
def test_a_file_that_gives_no_name(filename: str) -> None:
    """Is told how to give one."""
    with pytest.raises(DeclarationError, match="--name"):
        name_from(filename)


@pytest.mark.parametrize(
    ("kind", "texts", "type_", "said"),
    [
        ("BIGINT", {"zeros": 1, "numbers": 9}, "VARCHAR", True),
        ("VARCHAR", {"zeros": 1, "numbers": 9}, None, False),
        ("DOUBLE", {"long": 1, "numbers": 9}, "VARCHAR", True),
        ("BIGINT", {"long": 1, "numbers": 9}, None, False),
        ("DATE", {"dates": 9, "early": 9}, "VARCHAR", True),
        ("VARCHAR", {"dates": 9, "early": 9}, "VARCHAR", True),
        ("DATE", {"dates": 9, "early": 8}, None, False),
        ("VARCHAR", {"given": 0}, "DOUBLE", False),
        ("VARCHAR", {"given": 100, "numbers": 99}, "DOUBLE", False),
        ("VARCHAR", {"given": 100, "numbers": 50}, None, False),
        ("VARCHAR", {"given": 100, "numbers": 99, "zeros": 1}, None, False),
        ("BIGINT", {"numbers": 9}, None, False),
    ],
    ids=[
        "zeros",
        "zeros-in-text",
        "long-double",
        "long-bigint",
        "day-or-month",
        "day-or-month-as-text",
        "a-day-over-12",
        "nothing",
        "mostly-numbers",
        "half-numbers",
        "mostly-numbers-with-zeros",
        "sure",
    ],
)
def test_what_is_shaky(kind: str, texts: dict[str, int], type_: str | None, said: bool) -> None:
    """Only a type that another file may show to be wrong gets a hint; one that might refuse rows is only shown."""
    counted = {"given": 9, "zeros": 0, "long": 0, "numbers": 0, "dates": 0, "early": 0, **texts}
    found = hint_for(Column(name="a", original="A", type=kind), Texts(**counted))
    assert (found.type if found else None, bool(found and found.said)) == (type_, said)


def test_one_command_for_a_new_file(project: Path) -> None:
    """The dataset and its automation are there, load, and take the example whole; types are left to be inferred."""
    dataset = written(project, ORDERS)
    assert dataset == Dataset(name="orders")
    assert "It would be loaded: 2 rows." in loads(project, "orders.csv", "orders")
    (automation,) = load_project(project, only=["flows", "automations"]).automations
    assert "orders on arrival" in automation.name


def test_shaky_columns_are_hints_with_their_reason(project: Path) -> None:
    """A comment beside each; the example is taken whole with them."""
    lines = "".join(f"{number},{12345678901234567890 + number},0{number % 9 + 1}/02/2026\n" for number in range(30))
    dataset = written(project, f"id,card,on\n{lines}".encode(), "cards.tsv.csv")
    assert dataset.columns.get("on") == "VARCHAR"
    text = (project / "flows" / "cards.py").read_text()
    assert '# Day or month first? No value tells. For dates say "DATE" and csv=Csv(date="%d/%m/%Y").\n' in text
    assert "It would be loaded: 30 rows." in loads(project, "cards.tsv.csv", "cards")


def test_the_records_of_a_document_are_found(project: Path) -> None:
    """Where most of a JSON document is one list of objects, its rows are those."""
    content = (ROOT / "examples" / "data" / "earthquakes.geojson").read_bytes()
    dataset = written(project, gzip.compress(content), "quakes.geojson.gz")
    assert dataset == Dataset(name="quakes", records="features")
    assert "It would be loaded: 250 rows." in loads(project, "quakes.geojson.gz", "quakes")
    order = json.dumps({"id": 1, "note": "x" * 200, "lines": [{"item": "a"}, {"item": "b"}]})
    assert written(project, order.encode(), "order.json").records is None


def test_the_commented_check_is_one_that_works(project: Path) -> None:
    """Whoever takes away its # has a check, also on a column that is called like a word of SQL."""
    dataset = written(project, b"Order,name\n1,a\n,b\n", "words.csv")
    path = project / "flows" / "words.py"
    text = path.read_text()
    path.write_text(
        "\n".join(line.replace("    # ", "    ", 1) if _is_check(line) else line for line in text.split("\n"))
    )
    del sys.modules["flows.words"]
    importlib.invalidate_caches()
    shown = loads(project, "words.csv", dataset.name)
    assert "order_given" in shown
    assert "1 of 2 rows are rejected" in shown


def _is_check(line: str) -> bool:
    return line.strip() in ("# checks={", "# },") or "_given" in line


def test_a_second_time_changes_nothing(project: Path) -> None:
    """It is refused, and every file is as it was."""
    written(project, ORDERS)
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    again = init(project, str(project / "orders.csv"))
    assert isinstance(again.exception, DeclarationError)
    assert "there is a dataset orders already" in str(again.exception)
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before


def test_a_file_that_is_there_is_not_overwritten(project: Path) -> None:
    """Though it declares another dataset; nor is a file of automations."""
    (project / "flows" / "orders.py").write_text(_OTHER.replace("shop", "elsewhere"))
    (project / "orders.csv").write_bytes(ORDERS)
    refused = init(project, str(project / "orders.csv"))
    assert "flows/orders.py exists and is not overwritten" in str(refused.exception)
    (project / "automations").mkdir()
    mine = project / "automations" / "bills_on_arrival.py"
    mine.write_text("AUTOMATIONS = []\n")
    result = init(project, str(project / "orders.csv"), "--name", "bills")
    assert result.exit_code == 0
    assert mine.read_text() == "AUTOMATIONS = []\n"
    assert 'declare there: AUTOMATIONS = [on_arrival("bills")]' in result.output


def test_an_automation_that_is_declared_is_not_declared_twice(project: Path) -> None:
    """Wherever it stands."""
    (project / "automations").mkdir()
    (project / "automations" / "all.py").write_text(
        'from penstock import on_arrival\nAUTOMATIONS = [on_arrival(name) for name in ("shop", "orders")]\n'
    )
    written(project, ORDERS)
    assert [path.name for path in (project / "automations").glob("*.py")] == ["all.py"]


def test_a_file_in_the_inbox_has_its_prefix(project: Path) -> None:
    """Its folder gives the dataset's name, unless one is said; another dataset's folder is refused."""
    for folder in ("bills-2026", "shop/in"):
        (project / "inbox" / folder).mkdir(parents=True)
        (project / "inbox" / folder / "a.csv").write_bytes(ORDERS)
    result = init(project, str(project / "inbox" / "bills-2026" / "a.csv"))
    assert result.exit_code == 0, result.exception
    assert 'name="bills",\n    prefix="bills-2026/",' in (project / "flows" / "bills.py").read_text()
    refused = init(project, str(project / "inbox" / "shop" / "in" / "a.csv"), "--name", "till")
    assert isinstance(refused.exception, DeclarationError)
    assert "the dataset shop takes 'shop/in/' already" in str(refused.exception)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Orders", "use a-z, 0-9 and _"),
        ("../orders", "use a-z, 0-9 and _"),
        ("orders__rejected", "penstock's own"),
        ("shop", "there is a dataset shop already"),
    ],
    ids=["capital", "path", "own-ending", "taken"],
)
def test_names_that_cannot_be(project: Path, name: str, why: str) -> None:
    """Are refused, and nothing is written."""
    (project / "orders.csv").write_bytes(ORDERS)
    before = sorted(project.rglob("*"))
    result = init(project, str(project / "orders.csv"), "--name", name)
    assert isinstance(result.exception, DeclarationError)
    assert why in str(result.exception)
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("filename", "content", "why"),
    [
        ("orders.csv", b"", "0 bytes"),
        ("orders.csv", b"id,name\n", "no records"),
        ("orders.json", b"{", "orders.json: "),
        ("orders.txt", b"a\x00b\n", "another format is said with --format"),
        ("orders.csv.gz", b"\x1f\x8b\x08\x00broken", "broken gzip"),
    ],
    ids=["no-bytes", "header-only", "half-json", "suffix", "half-gzip"],
)
def test_examples_that_show_nothing(project: Path, filename: str, content: bytes, why: str) -> None:
    """Are refused with the reason, and nothing is written."""
    (project / filename).write_bytes(content)
    before = sorted(project.rglob("*"))
    result = init(project, str(project / filename))
    assert isinstance(result.exception, Unreadable), result.output
    assert why in str(result.exception)
    assert sorted(project.rglob("*")) == before


LINE = b'10.0.0.1 - ann [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326'


@pytest.mark.parametrize(
    ("content", "form", "pattern"),
    [
        ("Nr;Ort;Betrag\n1;Köln;1.234,50\n2;Bonn;2,25\n".encode("latin-1"), "csv", None),
        (LINE + b"\n" + LINE + b"\n", "log", "common"),
        (b"".join(LINE + b' "-" "curl/8"\n' for _ in range(9)) + b"\x16\x03 rubbish\n", "log", "combined"),
        (b'{"id": 1}\n{"id": 2}\n', "ndjson", None),
        (b'\xef\xbb\xbf[\n{"id": 1}\n]\n', "json", None),
        (gzip.compress(b'{\n"id": 1}'), "json", None),
    ],
    ids=["semicolons", "common", "combined", "lines", "array", "packed"],
)
def test_what_no_suffix_tells_is_found(project: Path, content: bytes, form: str, pattern: str | None) -> None:
    """By the bytes, compressed or not; it stands in the declaration, by which the example then loads."""
    found = written(project, content, "example.out")
    assert (found.format, found.pattern) == (form, pattern)
    loads(project, "example.out", "example")


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("app.log", b"2026-03-01 10:00:00,123 INFO up\n2026-03-01 10:00:01,456 WARN slow\n"),
        ("app.log.gz", gzip.compress(b"2026-03-01 10:00:00,123 [info] up\n" * 9)),
        ("app.txt", b"2026-03-01T10:00:00Z INFO up, and fine\n2026-03-01T10:00:01Z INFO no comma\n"),
        ("app.log", b"[2026-03-01] nothing, known\n[2026-03-02] other\n"),
    ],
    ids=["commas", "packed", "no-suffix-of-a-log", "brackets"],
)
def test_an_unknown_log_is_asked_about(project: Path, filename: str, content: bytes) -> None:
    """It is not taken for CSV of one column; the pattern that it offers is one that reads the lines."""
    (project / filename).write_bytes(content)
    before = sorted(project.rglob("*"))
    asked = init(project, str(project / filename))
    assert asked.exit_code == 2, asked.output
    assert sorted(project.rglob("*")) == before
    (said,) = re.findall(r"--pattern (.*)\n", asked.output)
    found = written(project, content, filename, "--pattern", *shlex.split(said))
    assert len(found.pattern or "") > 10
    assert "are rejected" not in loads(project, filename, "app")


def test_what_an_error_advises_can_be_said(project: Path) -> None:
    """Encoding, delimiter, decimal mark and lines before the header stand in the file, by which the example loads."""
    content = "a title\nOrt\tBetrag\nŁódź\t1,5\nBrno\t2,25\n".encode("windows-1250")
    options = ("--encoding", "windows-1250", "--delimiter", "tab", "--decimal", ",", "--skip", "1")
    found = written(project, content, "sums.csv", *options)
    assert found.csv == Csv(encoding="windows-1250", delimiter="\t", decimal=",", skip=1)
    text = (project / "flows" / "sums.py").read_text()
    assert '    csv=Csv(delimiter="\\t", encoding="windows-1250", decimal=",", skip=1),\n' in text
    assert "from penstock import Csv, Dataset\n" in text
    assert "It would be loaded: 2 rows." in loads(project, "sums.csv", "sums")
    records = json.dumps({"a": {"b": [{"id": 1}, {"id": 2}]}, "note": "x" * 200})
    assert written(project, records.encode(), "deep.json", "--records", "a.b").records == "a.b"
    assert "this is json" in init(project, str(project / "deep.json"), "--name", "x", "--skip", "1").output
    assert "this is csv" in init(project, str(project / "sums.csv"), "--name", "x", "--records", "a").output


def test_an_encoding_in_doubt_is_shown_in_each_reading(project: Path) -> None:
    """None of them is advised; each is shown with the option that chooses it."""
    (project / "towns.csv").write_bytes("id,town\n1,Brno\n2,Łódź\n".encode("windows-1250"))
    said = str(init(project, str(project / "towns.csv")).exception)
    assert "line 3 reads" in said
    assert "'2,Łódź' with --encoding windows-1250" in said
    assert "'2,£ódŸ' with --encoding windows-1252" in said
    assert "Csv(" not in said
    found = written(project, (project / "towns.csv").read_bytes(), "towns.csv", "--encoding", "windows-1250")
    assert found.csv.encoding == "windows-1250"


@pytest.mark.parametrize(
    ("columns", "suggested"),
    [
        (["id", "customer_id", "temperature"], "id IS NOT NULL"),
        (["id", "unit_price"], "unit_price >= 0"),
        (["price_code", "quantity"], "quantity >= 0"),
        (["account", "balance_total"], "account IS NOT NULL"),
    ],
    ids=["ids", "price", "code", "balance"],
)
def test_no_bound_is_suggested_for_what_may_be_negative(columns: list[str], suggested: str) -> None:
    """Numbers are ids and codes too, which have none."""
    known = [Column(name=name, original=name, type="BIGINT") for name in columns]
    code = dataset_source(Dataset(name="a"), known, [], example="a.csv", reserved=frozenset())
    assert f'": "{suggested}",' in code


def test_lines_of_another_log(project: Path) -> None:
    """Their pattern is given, and stands in the declaration as it is written by hand; without it there is a hint."""
    pattern = r"(?P<level>[A-Z]+) (?P<took>\d+) (?P<text>.*)"
    found = written(project, b'INFO 12 up\nWARN 7 "slow"\n', "app.txt", "--pattern", pattern)
    assert (found.format, found.pattern) == ("log", pattern)
    assert f'    pattern=r"{pattern}",' in (project / "flows" / "app.py").read_text()
    loads(project, "app.txt", "app")
    asked = init(project, str(project / "app.txt"), "--format", "log", "--name", "other")
    assert asked.exit_code == 2
    assert "--pattern" in asked.output


def workbook(path: Path, **sheets: list[list[object]]) -> str:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return str(path)


def test_the_sheet_of_a_workbook(project: Path) -> None:
    """Of several one must be said; where the names are not in the first row, it says how to tell."""
    rows: list[list[object]] = [["id", "amount"], [1, 2.5]]
    path = workbook(project / "book.xlsx", Orders=[["March"], [], *rows], Notes=[["x"], ["y"]])
    refused = init(project, path)
    assert "'Orders', 'Notes'" in str(refused.exception)
    assert "--sheet NAME" in str(refused.exception)
    assert "--header-row" in init(project, path, "--sheet", "1", "--print").output
    done = init(project, path, "--sheet", "Orders", "--header-row", "3")
    assert done.exit_code == 0, done.output
    assert "--header-row" not in done.output
    code = (project / "flows" / "book.py").read_text()
    assert "from penstock import Dataset, Excel\n" in code
    assert '    excel=Excel(sheet="Orders", header_row=3),\n' in code
    loads(project, "book.xlsx", "book")


def test_another_suffix_and_printing(project: Path) -> None:
    """--format reads what no suffix tells and stays in the declaration; --print writes nothing."""
    (project / "orders.txt").write_bytes(ORDERS)
    before = sorted(project.rglob("*"))
    printed = init(project, str(project / "orders.txt"), "--format", "csv", "--print")
    assert sorted(project.rglob("*")) == before
    assert 'format="csv",' in printed.output
    assert '# automations/: AUTOMATIONS = [on_arrival("orders")]' in printed.output
    assert written(project, ORDERS, "orders.txt", "--format", "csv").format == "csv"
    loads(project, "orders.txt", "orders")


def test_a_project_that_cannot_be_written(project: Path) -> None:
    """Says so, and how to see the code."""
    (project / "orders.csv").write_bytes(ORDERS)
    (project / "flows" / "orders.py").symlink_to(project / "none" / "orders.py")
    result = init(project, str(project / "orders.csv"))
    assert isinstance(result.exception, PenstockError)


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,60}[a-z0-9]", fullmatch=True).filter(
    lambda name: NAME.match(name) is not None
)
_HINTS = st.lists(
    st.builds(
        Hint,
        column=_NAMES,
        type=st.sampled_from(["VARCHAR", "DOUBLE"]),
        why=st.just("Some reason."),
        said=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda hint: hint.column,
)


def test_what_is_written_is_as_ruff_formats_it(tmp_path: Path) -> None:
    """Whatever the names are, and whether a project's lines have 88 or 120 characters."""
    number = iter(range(100_000))

    @given(_NAMES, _NAMES, _HINTS, st.lists(_NAMES, max_size=2), st.text(max_size=80), st.booleans())
    def write(name: str, prefix: str, hints: list[Hint], columns: list[str], example: str, plain: bool) -> None:
        said = {hint.column: hint.type for hint in hints if hint.said}
        records = None if plain else "a.b"
        dataset = Dataset(name=name, prefix="" if plain else f"{prefix}/", records=records, columns=said)
        found = [Column(name=column, original=column, type="BIGINT") for column in columns]
        code = dataset_source(dataset, found, hints, example=example, reserved=reserved)
        namespace: dict[str, object] = {}
        exec(code, namespace)  # noqa: S102 - what is tested
        assert namespace["DATASET"] == dataset
        (tmp_path / f"d{next(number)}.py").write_text(code)
        (tmp_path / f"a{next(number)}.py").write_text(automation_source(name))

    reserved = reserved_words()
    assert {"order", "select"} <= reserved
    write()
    (tmp_path / "longest.py").write_text(automation_source("n" * 63))
    assert len(list(tmp_path.iterdir())) > examples(50)
    for width in ("88", "120"):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "--line-length", width, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout[:2000] + done.stderr[-500:]


def test_folders_that_no_line_of_code_should_hold() -> None:
    """A prefix is written as it is, so one with quotes or control characters is refused."""
    for prefix in ('a"b/', "a\\b/", "a\nb/", "a\x1bb/"):
        with pytest.raises(DeclarationError, match="rename it"):
            refuse_overlap(Dataset(name="a", prefix=prefix), [])
    refuse_overlap(Dataset(name="a", prefix="größe 1/"), [])
    assert automation_line("a") == 'AUTOMATIONS = [on_arrival("a")]'
