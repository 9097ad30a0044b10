"""`penstock status`: how every dataset stands, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.in_the_table import counted, where_rows_give_way
from penstock.cli.output import aside, results
from penstock.cli.running import nothing_runs, pid_of_up
from penstock.cli.show import cell, moment, table
from penstock.model import State
from penstock.settings import Settings, load_settings
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.ledger import Ledger
    from penstock.ledger.facts import Standing
    from penstock.ledger.watermarks import Watermark

_OTHERS = (State.EMPTY, State.MISSING, State.SUPERSEDED, State.IGNORED)


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
    pid = pid_of_up(settings)
    tables, not_asked = _in_tables(settings, standings)
    standings = [replace(standing, rows=tables.get(standing.dataset, standing.rows)) for standing in standings]
    watermarks = {one.dataset: found for one in standings if (found := ledger.watermarks.of(one.dataset))}
    if as_json:
        facts = {
            "project": settings.project,
            "up": pid,
            "datasets": [
                {
                    **asdict(standing),
                    "rows_of": "ledger" if standing.dataset not in tables else "table",
                    "rows_not_asked": not_asked.get(standing.dataset),
                    "event_time": found.event_time if (found := watermarks.get(standing.dataset)) else None,
                    "late": found.late if found else None,
                }
                for standing in standings
            ],
            "wakeups": [asdict(wakeup) for wakeup in outstanding],
            "unsent_events": unsent,
            "named_and_absent": ledger.announcements.absent(limit=0)[0],
        }
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    console = results()
    console.print(f"[bold]{settings.project}[/bold]  " + _running(settings, pid))
    if not standings:
        aside(f"Nothing has arrived yet. Drop a file into {settings.inbox}/<dataset>/")
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
                counts.get(State.WAITING, 0),
                counts.get(State.QUARANTINED, 0),
                sum(counts.get(state, 0) for state in _OTHERS),
                standing.oldest_pending if pending else None,
            ]
        )
    columns = ["dataset", "loaded", "rows", "rejected", "pending", "waiting", "quarantined", "other", "oldest pending"]
    console.print(table(columns, rows))
    for standing in standings:
        for line in _besides(standing, watermarks.get(standing.dataset), not_asked.get(standing.dataset)):
            console.print(f"{standing.dataset or '(no dataset)'}: {cell(line)}", soft_wrap=True)
    for line in _not_whole(ledger, standings):
        console.print(line, soft_wrap=True)
    for wakeup in (one for one in outstanding if one.attempt > 1):
        console.print(
            f"{wakeup.dataset}: wake-up sent {wakeup.attempt} times; {cell(wakeup.note or 'no run yet')}",
            soft_wrap=True,
        )
    if unsent:
        console.print(f"{unsent} events wait for Prefect")
    if any(standing.counts.get(State.QUARANTINED) for standing in standings):
        console.print("Quarantined:")
        for story in ledger.facts.by_state(State.QUARANTINED, limit=10):
            console.print(f"  {cell(story.key)}: {cell(story.reason)}", soft_wrap=True)
        aside("More: penstock quarantine ls")


def _running(settings: Settings, pid: int | None) -> str:
    if pid is not None:
        return f"up (pid {pid})"
    if nothing_runs(settings):
        return "down; start: penstock up"
    return "no penstock up runs here; with the Prefect that is configured its parts may run elsewhere"


def _in_tables(settings: Settings, standings: Sequence[Standing]) -> tuple[dict[str, int], dict[str, str]]:
    """Of datasets whose rows give way to others the rows in their tables, or why the warehouse did not say.

    Where rows are only appended nobody is asked.
    """
    loaded = [standing.dataset for standing in standings if standing.rows]
    merging = where_rows_give_way(settings) if loaded else ()
    if merging is None:
        why = "the declarations cannot be read (penstock doctor)"
        return {}, dict.fromkeys(loaded, why)
    meant = [dataset for dataset in loaded if dataset in merging]
    found, why_not = counted(settings, meant) if meant else ({}, None)
    return found, {dataset: why_not for dataset in meant if why_not is not None and dataset not in found}


def _besides(standing: Standing, watermark: Watermark | None, not_asked: str | None) -> Iterator[str]:
    """What the table has no column for."""
    if standing.archived:
        yield f"{standing.archived:,} more were done with, and are archived"
    if standing.hold_until:
        yield f"held by a transient error until {moment(standing.hold_until)}"
    if not_asked is not None:
        yield f"rows are those that were loaded, whether they gave way to others or not: {not_asked}"
    named = [(standing.counts.get(state, 0), state.value) for state in _OTHERS if state is not State.IGNORED]
    ignored = standing.counts.get(State.IGNORED, 0) - standing.markers
    named += [(ignored, "ignored"), (standing.markers, "marker file" if standing.markers == 1 else "marker files")]
    if any(count for count, _ in named):
        yield "other: " + ", ".join(f"{count:,} {name}" for count, name in named if count)
    if watermark is not None:
        yield f"{watermark.late:,} rows came late; event times until {moment(watermark.event_time)}"


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
