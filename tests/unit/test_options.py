"""What a declaration says wrongly is refused when it is made, with what is allowed, and what was meant."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pytest
from prefect._internal.schemas.validators import validate_cron_string

from penstock.checks import Check, not_null, row_count, unique
from penstock.declarations import Backfill, Dataset, Ready
from penstock.dialects import Csv, Excel
from penstock.errors import DeclarationError
from penstock.options import WORDS
from penstock.project import load_project

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": "cvs"}, "format 'cvs': use auto, csv, .*; did you mean 'csv'"),
    ({"format": "xlsx"}, "did you mean 'excel'"),
    ({"format": "wholly else"}, "or delivery$"),
    ({"nested": "keeep"}, "use flatten or keep; did you mean 'keep'"),
    ({"on_overwrite": "ignor"}, "did you mean 'ignore'"),
    ({"schema": "evolv"}, "did you mean 'evolve'"),
    ({"write": "replace"}, "use append, merge or replace_partition"),
    ({"every": 15}, r"every 15 must be a timedelta: every=timedelta\(minutes=15\)"),
    ({"every": "15m"}, r"every=timedelta\(minutes=15\)"),
    ({"every": timedelta(0)}, "more than no time"),
    ({"every": timedelta(minutes=-1)}, "more than no time"),
    ({"lateness": 3600}, r"lateness=timedelta\(hours=1\)"),
    ({"lateness": timedelta(seconds=-1)}, "no less than no time"),
    ({"cron": ["61 * * * *"]}, "cron '61 . . . .' is no cron expression"),
    ({"cron": ["h * * * *"]}, "is no cron expression"),
    ({"cron": "*/5 * * * *"}, re.escape("cron=['*/5 * * * *']")),
    ({"ready": "_SUCCESS"}, r"ready must be Ready\(beside.*, not '_SUCCESS'"),
    ({"backfill": "archive/"}, r"backfill must be Backfill\("),
    ({"csv": {"delimiter": ";"}}, r"csv must be Csv\("),
    ({"prefix": "sales/*/"}, "a glob over the rest goes into match"),
    ({"prefix": 7}, "prefix 7 must be a text"),
    ({"records": "features", "format": "csv"}, "records= is for format='json' or 'ndjson', and says nothing of 'csv'"),
    ({"nested": "keep", "format": "parquet"}, "nested= is for"),
    ({"csv": Csv(delimiter=";"), "format": "json"}, "csv= is for format='csv' or 'tsv'"),
    ({"excel": Excel(sheet="a"), "format": "csv"}, "excel= is for format='excel'"),
    ({"select": "order_id"}, re.escape("select is a list of columns: select=['order_id']")),
    ({"key": "id", "write": "merge"}, re.escape("key=['id']")),
    ({"partitions": {"day": 1}}, "partitions .* must be a list of columns"),
    ({"threshold": "0.9"}, "threshold '0.9' is a share, from 0 to 1"),
    ({"threshold": 90}, "from 0 to 1"),
    ({"retain_days": timedelta(days=30)}, "retain_days=30"),
    ({"retain_days": "30"}, "more than 0"),
    ({"max_attempts": "5"}, "whole number"),
    ({"ordered": "no"}, "True or False"),
    ({"checks": [not_null("id")]}, r'checks must be texts or helpers by name, .*"id_known": not_null\("id"\)\}, not'),
    ({"derive": ["a"]}, "derive must be texts by name"),
    ({"columns": ["a"]}, "columns must be texts by name"),
    ({"report": ["a"]}, "report must be texts by name"),
    ({"derive": {"a": 1}}, "derive a: 1 must be a text"),
    ({"columns": {"a": int}}, "columns a: .* must be a text"),
    ({"checks": {"s": 5}}, "check s: an SQL predicate .* not 5"),
    ({"checks": {"s": Check("a > 0", severity="rows")}}, "check s: severity 'rows': .*; did you mean 'row'"),  # type: ignore[arg-type]
    ({"checks": {"s": Check("a > 0", over="rows")}}, "check s: over 'rows'"),  # type: ignore[arg-type]
    ({"checks": {"s": Check("count(*) > 0", "row", "object")}}, "check s: .* has no row to put aside"),
    ({"checks": {"s": Check("a", control="rows")}}, "check s: .*over='object'"),
    ({"transform": "with_tax"}, "transform 'with_tax' must be a function"),
    ({"name": "x" * 64}, "has 64 letters, and may have 63"),
    ({"name": "Sales"}, "use a-z"),
    ({"name": 5}, "use a-z"),
    ({"columns": {"c" * 70: "DATE"}}, "has 70 letters"),
    ({"write": "merge"}, r'add key=\["id"\]'),
    ({"key": ["id"]}, 'add write="merge"'),
]


@pytest.mark.parametrize(
    ("declared", "says"), WRONG, ids=[f"{next(iter(one))}-{place}" for place, (one, _) in enumerate(WRONG)]
)
def test_what_cannot_be_is_refused(declared: dict[str, Any], says: str) -> None:
    """With the dataset's name, what is allowed, and the word that was meant where there is one."""
    with pytest.raises(DeclarationError, match=f"^dataset .*{says}"):
        Dataset(**{"name": "sales", **declared})


def test_what_may_be_is_taken() -> None:
    """The bounds of each, and an option beside a format that heeds it."""
    Dataset(
        name="x" * 63,
        every=timedelta(seconds=1),
        cron=("0 3 * * *", "@daily", "0 4 * * 1#2"),
        retain_days=0.5,
        threshold=1,
        checks={"a": row_count(0, 0), "b": row_count(1), "c": "a > 0"},
        ready=Ready(beside="done"),
    )
    for options in (
        {"format": "tsv", "csv": Csv(decimal=",")},
        {"format": "ndjson", "nested": "keep"},
        {"format": "excel", "excel": Excel(sheet=2)},
        {"csv": Csv(decimal=","), "excel": Excel(sheet=2), "records": "a", "nested": "keep"},
    ):
        Dataset(name="sales", **options)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (row_count, "true of every object"),
        (lambda: row_count(5, 2), "at_least=5 is more than at_most=2"),
        (lambda: row_count(-1), "from 0 on"),
        (lambda: row_count(1, "9"), "from 0 on"),  # type: ignore[arg-type]
        (lambda: unique(["a", "b"]), r"not by \['a', 'b'\]"),  # type: ignore[arg-type]
        (lambda: not_null(""), "named by a text"),
        (lambda: Ready(beside=5), "say one of"),  # type: ignore[arg-type]
        (lambda: Csv(delimiter=5), "csv: delimiter 5 must be a text"),  # type: ignore[arg-type]
        (lambda: Backfill(prefix="a/*/"), "backfill: .*glob"),
    ],
    ids=["no-bounds", "crossed", "negative", "text", "list", "no-column", "beside", "csv", "backfill"],
)
def test_helpers_refuse_too(make: Callable[[], object], says: str) -> None:
    """They are checked where they are called."""
    with pytest.raises(DeclarationError, match=says):
        make()


def test_the_words_are_those_of_the_types() -> None:
    """What an editor offers and what is taken are the same."""
    types = get_type_hints(Dataset, localns={"pa": pa})
    assert {what: get_args(types[what]) for what in WORDS} == WORDS


@pytest.mark.parametrize(
    "cron",
    ["* * * * *", "@daily", "0 0 31 2 *", "* * * * * *", "0 3 * * 1#2", "61 * * * *", "H * * * *", "", "0 3 * *"],
)
def test_schedules_are_judged_as_prefect_does(cron: str) -> None:
    """Without asking Prefect, which takes long to import."""
    try:
        validate_cron_string(cron)
    except ValueError:
        with pytest.raises(DeclarationError, match="cron"):
            Dataset(name="sales", cron=[cron])
    else:
        Dataset(name="sales", cron=[cron])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "flows").mkdir()
    kept = list(sys.path)
    there = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "flows"}
    yield tmp_path
    sys.path[:] = kept
    for name in [name for name in sys.modules if name.partition(".")[0] == "flows"]:
        del sys.modules[name]
    sys.modules.update(there)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Dataset(name='a', chekcs={})", "Dataset has no chekcs; did you mean checks=?"),
        ("Csv(delimeter=';')", "Csv has no delimeter; did you mean delimiter=?"),
        ("Excel(sheets=1)", "Excel has no sheets; did you mean sheet=?"),
        ("Ready(besides='.done')", "Ready has no besides; did you mean beside=?"),
        ("Backfill(perminute=5)", "Backfill has no perminute; did you mean per_minute=?"),
        ("Source(nme='a')", "Source has no nme; did you mean name=?"),
        ("Folder(pollling=True)", "Folder has no pollling; did you mean polling=?"),
        ("Bucket(where='a')", "Bucket has no where: it has name, every"),
        ("from penstock import acepted", "penstock has no acepted; did you mean accepted?"),
        ("import penstock; penstock.Datset", "penstock has no Datset; did you mean Dataset?"),
        ("from penstock import wholly", "penstock has no wholly: docs/datasets.md"),
        ("Other(nme='a')", "TypeError: Other.__init__() got"),
    ],
    ids=[
        "dataset", "csv", "excel", "ready", "backfill", "source", "folder", "bucket", "import", "attribute", "no-near",
        "own",
    ],
)  # fmt: skip
def test_unknown_names_come_with_the_nearest(project: Path, line: str, says: str) -> None:
    """In the place of Python's words, with file and line; what is the project's own is left in them."""
    (project / "flows" / "a.py").write_text(
        "from penstock import Backfill, Bucket, Csv, Dataset, Excel, Folder, Ready, Source\n"
        f"class Other:\n    def __init__(self): ...\n{line}\n"
    )
    with pytest.raises(DeclarationError) as raised:
        load_project(project, only=["flows"])
    assert str(raised.value).startswith(f"flows/a.py:4: {says}")
