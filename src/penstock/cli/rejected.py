"""`penstock quarantine rejected DATASET`: the rows that were put aside, by reason, with an example of each."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from penstock.cli.completing import datasets
from penstock.cli.output import aside, results
from penstock.cli.show import table
from penstock.settings import load_settings
from penstock.warehouse.base import OBJECT, REJECTED_SUFFIX, ROW
from penstock.wiring import open_warehouse

_MOST_SHOWN = 100
_LONGEST_RAW = 60


@click.command()
@click.argument("dataset", shell_complete=datasets)
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def rejected(project_dir: Path, dataset: str, as_json: bool) -> None:
    """The rows of DATASET that were put aside: how many for each check, column and reason, and an example of each.

    Every one is in the table DATASET__rejected. Once the declaration is mended: penstock replay --rejected.
    """
    from penstock.project import load_project

    settings = load_settings(project_dir)
    name = load_project(settings.project_dir, only=["flows"]).dataset(dataset).name
    postgres = bool(settings.warehouse_url.get_secret_value())
    found: Sequence[tuple[Any, ...]] = ()
    if postgres or settings.warehouse.exists():
        warehouse = open_warehouse(settings)
        named = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{name}{REJECTED_SUFFIX}'"
        if columns := {column for (column,) in warehouse.query(named, limit=_MOST_SHOWN).rows}:
            found = warehouse.query(_by_reason(name, columns), limit=_MOST_SHOWN).rows
    if as_json:
        keys = ("check", "column", "reason", "rows", "object", "line", "raw")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in found], indent=2, default=str))
    elif not found:
        click.echo(f"No row of {name} was rejected.")
    else:
        _tell(results(), name, found)


def _by_reason(dataset: str, columns: Collection[str]) -> str:
    """Also PostgreSQL's SQL. A table of before has only reasons, which hold values, so that there is no end of them:
    where something else tells they are not told apart.
    """
    from penstock.quoting import quoted

    check, column = (
        name if name in columns else f"CAST(NULL AS VARCHAR) AS {name}" for name in ("check_name", "column_name")
    )
    group = "PARTITION BY check_name, column_name, CASE WHEN check_name IS NULL AND column_name IS NULL THEN reason END"
    rows = f"SELECT {check}, {column}, reason, {OBJECT}, {ROW}, line, raw FROM {quoted(dataset + REJECTED_SUFFIX)}"
    return (
        f"SELECT check_name, column_name, reason, many, {OBJECT}, line, raw FROM (SELECT *, count(*) OVER ({group}) AS "
        f"many, row_number() OVER ({group} ORDER BY {OBJECT}, {ROW}) AS nth FROM ({rows}) AS r) AS t "
        f"WHERE nth = 1 ORDER BY many DESC, {OBJECT}, {ROW}"
    )


def _tell(console: Console, name: str, found: Sequence[tuple[Any, ...]]) -> None:
    rows = [
        [many, check or column or "", reason, f"{where}:{line}" if line else where, (raw or "")[:_LONGEST_RAW]]
        for check, column, reason, many, where, line, raw in found
    ]
    console.print(table(["rows", "check or column", "reason", "first", "raw"], rows))
    if len(found) == _MOST_SHOWN:
        aside(f"The first {_MOST_SHOWN} reasons; all rows: penstock query 'SELECT * FROM {name}{REJECTED_SUFFIX}'")
    aside(f"Mended? penstock replay --rejected --dataset {name}")
