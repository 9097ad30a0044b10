"""`penstock migrate`: bring the ledger to this penstock's revision."""

from __future__ import annotations

import json
from pathlib import Path

import click

from penstock.cli.output import aside
from penstock.project import load_project
from penstock.settings import load_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def migrate(project_dir: Path, as_json: bool) -> None:
    """Bring the ledger to this penstock's revision. Nothing else of the project may run meanwhile."""
    from penstock.ledger import Ledger

    settings = load_settings(project_dir)
    load_project(settings.project_dir, only=())
    ledger = Ledger(settings.ledger, project=settings.project)
    before, after = ledger.migrate(lock_folder=settings.home)
    ledger.close()
    if as_json:
        click.echo(json.dumps({"before": before, "after": after, "steps": steps_taken(before, after)}, indent=2))
        return
    if before == after:
        click.echo(f"The ledger has revision {after} already.")
        return
    steps = steps_taken(before, after)
    click.echo(f"The ledger went from {before or 'nothing'} to revision {after}{':' if steps else '.'}")
    for line in steps:
        click.echo(f"  {line}")
    aside("Next: penstock up")


def steps_taken(before: str | None, after: str) -> list[str]:
    """A line for each revision that a migration went through; none for a ledger that was made just now."""
    from penstock.ledger.database import brought

    return [f"{revision}  {what}" for revision, what in brought(before, after)] if before else []
