"""`penstock status`: how every dataset stands, and what waits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from penstock.cli.show import cell, moment, table
from penstock.ledger import Ledger
from penstock.ledger.facts import Standing
from penstock.model import State
from penstock.settings import RUNTIME_FILE, load_settings, read_made
from penstock.wiring import open_ledger


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def status(project_dir: Path, as_json: bool) -> None:
    """How every dataset stands, what waits, and why."""
    settings = load_settings(project_dir)
    ledger = open_ledger(settings)
    standings = ledger.facts.standings()
    outstanding = ledger.wakeups.outstanding()
    unsent = ledger.outbox.count()
    pid = _pid(read_made(settings.home, RUNTIME_FILE))
    if as_json:
        facts = {
            "project": settings.project,
            "up": pid,
            "datasets": [asdict(standing) for standing in standings],
            "wakeups": [asdict(wakeup) for wakeup in outstanding],
            "unsent_events": unsent,
            "named_and_absent": ledger.announcements.absent(limit=0)[0],
        }
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{settings.project}[/bold]  " + (f"up (pid {pid})" if pid else "down; start: penstock up"))
    if not standings:
        console.print(f"Nothing has arrived yet. Drop a file into {settings.inbox}/<dataset>/")
        return
    rows: list[list[Any]] = []
    for standing in standings:
        counts = standing.counts
        pending = counts.get(State.PENDING, 0) + counts.get(State.CLAIMED, 0)
        rows.append(
            [
                standing.dataset or "(no dataset)",
                counts.get(State.LOADED, 0),
                standing.rows,
                standing.rejected,
                pending,
                counts.get(State.QUARANTINED, 0),
                sum(counts.get(state, 0) for state in (State.EMPTY, State.MISSING, State.SUPERSEDED, State.IGNORED)),
                standing.oldest_pending if pending else None,
            ]
        )
    columns = ["dataset", "loaded", "rows", "rejected", "pending", "quarantined", "other", "oldest pending"]
    console.print(table(columns, rows))
    for standing in standings:
        if standing.archived:
            console.print(f"{standing.dataset}: {standing.archived} more were done with, and are archived")
        if standing.hold_until:
            console.print(f"{standing.dataset} is held by a transient error until {standing.hold_until}")
    for line in _not_whole(ledger, standings):
        console.print(line, soft_wrap=True)
    for wakeup in outstanding:
        if wakeup.attempt > 1:
            console.print(f"{wakeup.dataset}: wake-up sent {wakeup.attempt} times; {wakeup.note or 'no run yet'}")
    if unsent:
        console.print(f"{unsent} events wait for Prefect")
    if any(standing.counts.get(State.QUARANTINED) for standing in standings):
        console.print("Quarantined:")
        for story in ledger.facts.by_state(State.QUARANTINED, limit=10):
            console.print(f"  {story.key}: {story.reason}", markup=False)
        console.print("More: penstock quarantine ls")


def _not_whole(ledger: Ledger, standings: Sequence[Standing]) -> Iterator[str]:
    """What waits for another object, or as an old one for its turn, and what a manifest named that nobody has seen."""
    for standing in standings:
        if standing.oldest_waiting and (story := ledger.facts.waiting_longest(standing.dataset)):
            yield (
                f"{standing.dataset}: {standing.counts[State.WAITING]:,} waiting for another object, the oldest since "
                f"{moment(story.arrived_at)}: {cell(story.key)} for {cell(story.waits_for)}"
            )
        if ledger.backlog.is_waiting(standing.dataset):
            yield f"{standing.dataset}: old objects wait for their turn: penstock backfill {standing.dataset}"
    absent, first = ledger.announcements.absent(limit=3)
    if absent:
        named = ", ".join(f"{cell(one.key)} (by {cell(one.manifest)})" for one in first)
        yield f"named by manifests and not there: {absent:,}, such as {named}"


def _pid(runtime: dict[str, Any]) -> int | None:
    pid = runtime.get("pid")
    if not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return pid
