"""`penstock schema DATASET`: the schemas that are remembered, version by version, and what each changed."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from penstock.cli.completing import datasets
from penstock.cli.output import results
from penstock.cli.show import moment, printable
from penstock.errors import PenstockError
from penstock.settings import load_settings
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.ledger.schemas import Remembered


@click.command()
@click.argument("dataset", shell_complete=datasets)
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def schema(project_dir: Path, dataset: str, as_json: bool) -> None:
    """The remembered schemas of DATASET, for each format: since when, made for what, and what changed."""
    from penstock.cli.show_schema import schema_facts
    from penstock.project import load_project

    settings = load_settings(project_dir)
    declared = load_project(settings.project_dir, only=["flows"]).dataset(dataset)
    versions = open_ledger(settings).schemas.versions(declared.name)
    if as_json:
        click.echo(json.dumps(schema_facts(versions), indent=2, default=str))
        return
    if not versions:
        raise PenstockError(
            f"no schema of {dataset} is remembered yet: the first load makes it. "
            f"What it would be: penstock preview FILE --dataset {dataset}"
        )
    console = results()
    for form, group in groupby(versions, key=lambda one: one.form):
        _tell(console, form, list(group))


def _tell(console: Console, form: str, versions: list[Remembered]) -> None:
    from penstock.cli.show_preview import one_line, text_table
    from penstock.cli.show_schema import differences

    console.print(Text(form, "bold"))
    before: Remembered | None = None
    for one in versions:
        told = f"  version {one.schema.version}  {moment(one.at)}  {one_line(one.cause)}"
        console.print(Text(told), soft_wrap=True)
        for line in differences(before.schema, one.schema) if before else ():
            console.print(Text(f"    {printable(line)}"), soft_wrap=True)
        before = one
    newest = versions[-1].schema
    dialect = ", ".join(f"{key} {value!r}" for key, value in newest.dialect.items())
    if dialect:
        console.print(Text(f"  dialect: {printable(dialect)}"), soft_wrap=True)
    rows = [(column.name, column.type, column.original) for column in newest.columns]
    console.print(text_table(["column", "type", "read from"], rows))
