"""`penstock migrate`: bring the ledger to this penstock's revision."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.ledger import Ledger
from penstock.ledger.database import brought
from penstock.settings import load_settings


@click.command()
@click.pass_obj
def migrate(project_dir: Path) -> None:
    """Bring the ledger to this penstock's revision. Nothing else of the project may run meanwhile."""
    settings = load_settings(project_dir)
    ledger = Ledger(settings.ledger, project=settings.project)
    before, after = ledger.migrate(lock_folder=settings.home)
    ledger.close()
    if before == after:
        click.echo(f"The ledger has revision {after} already.")
        return
    steps = steps_taken(before, after)
    click.echo(f"The ledger went from {before or 'nothing'} to revision {after}{':' if steps else '.'}")
    for line in steps:
        click.echo(f"  {line}")
    click.echo("Next: penstock up")


def steps_taken(before: str | None, after: str) -> list[str]:
    """A line for each revision that a migration went through; none for a ledger that was made just now."""
    return [f"{revision}  {what}" for revision, what in brought(before, after)] if before else []
