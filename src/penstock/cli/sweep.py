"""`penstock sweep`: compare the bucket with the ledger now."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from penstock.cli.output import aside
from penstock.declarations import Bucket
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.wiring import open_landing, open_ledger, open_store, open_warehouse


@click.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--afresh", is_flag=True, help="From the beginning, also where an earlier sweep was cut short.")
@click.option("--verify", is_flag=True, help="Compare every object with the warehouse too.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def sweep(project_dir: Path, prefix: str, afresh: bool, verify: bool, as_json: bool) -> None:
    """Compare the bucket with the ledger now, and record what events missed.

    One that was cut short is gone on with by the next of the same prefix.

    With --verify the warehouse is compared with the ledger too, and what it lost is loaded again.
    """
    from penstock.ledger.database import utc_now
    from penstock.sensors.sweep import Sweep

    settings = load_settings(project_dir)
    # Sources too: deliveries that a crash left are taken up with the events that their source asks for.
    project = load_project(settings.project_dir, only=["flows", "sensors", "webhook"])
    ledger, store = open_ledger(settings), open_store(settings)
    landing = open_landing(settings, project, store, ledger)
    facts: dict[str, Any] = {}
    for watched in project.buckets or (Bucket(),):
        bucket = watched.name or settings.bucket
        swept = Sweep(
            bucket, store=store, ledger=ledger, landing=landing, datasets=project.datasets, clock=utc_now
        ).run_once(prefix, afresh=afresh)
        facts[bucket] = vars(swept)
        if not as_json:
            click.echo(
                f"{bucket}: {swept.listed} objects listed, {swept.recorded + swept.adopted} were new to the ledger, "
                f"{swept.deliveries} deliveries recovered."
            )
            if swept.resumed:
                click.echo(f"{bucket}: it went on where a sweep was cut short. For all of it: penstock sweep --afresh")
            if swept.skipped:
                click.echo(f"{bucket}: the store does not tell of {swept.skipped} keys now; sweep again later")
    if not as_json:
        aside("Next: penstock status")
    if verify:
        # Only who asks for it waits for Prefect and DuckDB.
        from penstock.flows.verify import compare

        found = compare(ledger, open_warehouse(settings))
        facts["warehouse"] = [asdict(one) for one in found]
        for one in found if not as_json else ():
            lost = f"{one.lost} were lost there and are loaded again" if one.lost else "all there"
            click.echo(f"{one.dataset}: {one.loaded} objects compared with the warehouse, {lost}")
    if as_json:
        click.echo(json.dumps(facts, indent=2))
