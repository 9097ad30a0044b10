"""`penstock query SQL`: ask the warehouse, read only, without keeping a load waiting for long."""

from __future__ import annotations

import json
from pathlib import Path

import click

from penstock.cli.output import aside, results
from penstock.cli.show import table
from penstock.settings import load_settings
from penstock.wiring import open_warehouse


@click.command()
@click.argument("sql")
@click.option("--limit", default=100, show_default=True, help="At most so many rows.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def query(project_dir: Path, sql: str, limit: int, as_json: bool) -> None:
    """Run SQL on the warehouse, read only; it is held only while the query runs, 30 s at most."""
    settings = load_settings(project_dir)
    found = open_warehouse(settings).query(sql, limit=limit)
    if as_json:
        click.echo(
            json.dumps([dict(zip(found.columns, row, strict=True)) for row in found.rows], indent=2, default=str)
        )
        return
    console = results()
    console.print(table(found.columns, found.rows))
    if found.truncated:
        aside(f"(the first {limit} rows; more with --limit)")
