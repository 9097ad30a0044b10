"""`penstock backfill [DATASET]`: how far the load of old objects is, and when it will be done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.completing import datasets
from penstock.cli.output import results
from penstock.cli.running import NOTHING_RUNS, nothing_runs
from penstock.cli.show import moment, table
from penstock.declarations import Backfill, Dataset
from penstock.errors import DeclarationError
from penstock.settings import load_settings
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.ledger.backlog import Progress


@click.command()
@click.argument("dataset", required=False, shell_complete=datasets)
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def backfill(project_dir: Path, dataset: str | None, as_json: bool) -> None:
    """How far the load of old objects is: of DATASET, or of every dataset that declares a backfill."""
    from penstock.project import load_project

    settings = load_settings(project_dir)
    project = load_project(settings.project_dir, only=["flows"])
    chosen = with_backfill(project.datasets if dataset is None else [project.dataset(dataset)])
    ledger = open_ledger(settings)
    found = [(declared, ledger.backlog.progress(name, declared)) for name, declared in chosen]
    if as_json:
        click.echo(json.dumps([_facts(*one) for one in found], indent=2, default=str))
        return
    console = results()
    columns = ["dataset", "done", "left", "failed", "last 10 min", "waiting from", "to"]
    rows = [[p.dataset, p.done, p.left, p.failed, p.recently, p.oldest, p.newest] for _, p in found]
    console.print(table(columns, rows))
    down = nothing_runs(settings)
    for declared, progress in found:
        for line in told(declared, progress, down=down):
            console.print(f"{progress.dataset}: {line}", markup=False, soft_wrap=True)


def with_backfill(datasets: Sequence[Dataset]) -> list[tuple[str, Backfill]]:
    """Those of the datasets that declare a backfill. Raises DeclarationError that says how, where none does."""
    found = [(dataset.name, dataset.backfill) for dataset in datasets if dataset.backfill is not None]
    if not found:
        which = f"the dataset {datasets[0].name} has no" if len(datasets) == 1 else "no dataset has a"
        raise DeclarationError(
            f"{which} backfill: say in its file in flows/ what is old, such as "
            "backfill=Backfill(prefix='archive/sales/', per_minute=600); see docs/backfill.md"
        )
    return found


def told(declared: Backfill, progress: Progress, *, down: bool = False) -> list[str]:
    """What is said of one dataset below the table: what comes next and when it will be done."""
    rate = f"at most {declared.per_minute:,} a minute" if declared.per_minute else "as fast as they load"
    lines = [f"{declared.order} first, {rate}, when nothing new waits"]
    if down:
        lines.append(f"{'' if progress.left else 'nothing old waits that is known of, and '}{NOTHING_RUNS}")
    if not progress.left:
        lines += [] if down else ["nothing old waits; what the sweep still finds is added"]
    elif progress.estimate is None:
        lines.append("no estimate yet: none was loaded in the last minutes, and no per_minute is declared")
    else:
        at, by = progress.estimate
        seen = f"{progress.per_minute:,.0f} a minute in the last minutes" if by == "observed" else "its per_minute"
        lines.append(f"done about {moment(at)}, by {seen}")
    if progress.failed:
        lines.append(f"{progress.failed:,} are in quarantine: penstock quarantine ls")
    return lines


def _facts(declared: Backfill, progress: Progress) -> dict[str, Any]:
    estimate = progress.estimate
    return {
        **asdict(progress),
        "order": declared.order,
        "per_minute": progress.per_minute,
        "done_at": estimate[0] if estimate else None,
        "estimated_by": estimate[1] if estimate else None,
    }
