"""`penstock sweep`: compare the bucket with the ledger now."""

from __future__ import annotations

import json
from pathlib import Path

import click

from penstock.declarations import Bucket
from penstock.ledger.database import utc_now
from penstock.project import load_project
from penstock.sensors.sweep import Sweep
from penstock.settings import load_settings
from penstock.wiring import open_landing, open_ledger, open_store


@click.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def sweep(project_dir: Path, prefix: str, as_json: bool) -> None:
    """Compare the bucket with the ledger now, and record what events missed."""
    settings = load_settings(project_dir)
    project = load_project(settings.project_dir, only=["flows", "sensors"])
    ledger, store = open_ledger(settings), open_store(settings)
    landing = open_landing(settings, project, store, ledger)
    facts = {}
    for watched in project.buckets or (Bucket(),):
        bucket = watched.name or settings.bucket
        swept = Sweep(
            bucket, store=store, ledger=ledger, landing=landing, datasets=project.datasets, clock=utc_now
        ).run_once(prefix)
        facts[bucket] = vars(swept)
        if not as_json:
            click.echo(
                f"{bucket}: {swept.listed} objects listed, {swept.recorded + swept.adopted} were new to the ledger, "
                f"{swept.deliveries} deliveries recovered. Next: penstock status"
            )
    if as_json:
        click.echo(json.dumps(facts, indent=2))
