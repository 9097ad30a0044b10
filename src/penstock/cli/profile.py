"""`penstock profile DATASET`: what the dataset's table holds, column by column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from penstock.cli.completing import datasets
from penstock.cli.output import aside, results
from penstock.cli.show import moment
from penstock.declarations import Dataset
from penstock.errors import PenstockError
from penstock.settings import load_settings
from penstock.wiring import open_warehouse

if TYPE_CHECKING:
    from penstock.cli.profiling import Profile

_MOST_SHOWN = 200


@click.command()
@click.argument("dataset", shell_complete=datasets)
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def profile(project_dir: Path, dataset: str, as_json: bool) -> None:
    """What DATASET's table holds: for each column its least and greatest value, how many there are, how many are empty.

    The warehouse is only read, and held for 30 s at most for each question.
    """
    from penstock.cli.profiling import profile_facts, profile_of
    from penstock.project import load_project

    settings = load_settings(project_dir)
    declared = load_project(settings.project_dir, only=["flows"]).dataset(dataset)
    postgres = bool(settings.warehouse_url.get_secret_value())
    found = None
    if postgres or settings.warehouse.exists():
        found = profile_of(open_warehouse(settings), declared.name, postgres=postgres)
    if found is None:
        raise PenstockError(
            f"{dataset} has no table yet: nothing of it was loaded. Put a file into "
            f"{settings.inbox}/{declared.prefix}; what would come of it: penstock preview FILE --dataset {dataset}"
        )
    if not found.rows:
        raise PenstockError(
            f"{dataset} has a table without rows; {found.rejected:,} rows were rejected. "
            f"What is in quarantine: penstock quarantine ls --dataset {dataset}"
        )
    if as_json:
        click.echo(json.dumps({"dataset": dataset, **profile_facts(found)}, indent=2, default=str))
        return
    _tell(results(), declared, found)


def _tell(console: Console, dataset: Dataset, found: Profile) -> None:
    from penstock.cli.show_preview import text_table

    console.print(Text(dataset.name, "bold"), soft_wrap=True)
    loaded = ""
    if found.first_loaded and found.last_loaded:
        loaded = f", loaded from {moment(found.first_loaded)} to {moment(found.last_loaded)}"
    console.print(Text(f"{found.rows:,} rows of {found.objects:,} objects{loaded}"), soft_wrap=True)
    if found.rejected or found.rescued:
        told = f"{found.rejected:,} rows rejected, {found.rescued:,} with something rescued"
        console.print(Text(told, "yellow"), soft_wrap=True)
    rows = [(one.name, one.type, one.low, one.high, _count(one.distinct), _share(one.empty)) for one in found.columns]
    distinct = "distinct" if found.exact else "distinct ~"
    console.print(text_table(["column", "type", "min", "max", distinct, "null"], rows[:_MOST_SHOWN]))
    if len(rows) > _MOST_SHOWN:
        aside(f"… and {len(rows) - _MOST_SHOWN:,} more columns; all of them: --json")


def _count(distinct: int | None) -> str:
    return "" if distinct is None else f"{distinct:,}"


def _share(empty: float) -> str:
    return f"{empty:.1%}" if empty else ""
