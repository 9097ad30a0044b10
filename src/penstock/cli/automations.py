"""`penstock automations`: which there are on the Prefect server, and what they did lately."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.output import aside, results
from penstock.cli.show import cell, moment, table
from penstock.errors import NotRunning
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    from penstock.automations.history import Past

_LATELY = timedelta(days=1)
# How far back the last firing is looked for; servers keep their events for 7 days, unless told otherwise.
_EVER = timedelta(days=30)


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Those of other projects and of nobody, too.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def automations(project_dir: Path, everyone: bool, as_json: bool) -> None:
    """The project's automations on the server: when they fired, what they did in the last 24 hours, what failed."""
    from penstock.automations.history import owned_by

    settings = load_settings(project_dir)
    lines, complete = _read(settings, datetime.now(UTC))
    shown = lines if everyone else owned_by(lines, settings.project)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in shown], indent=2, default=str))
        return
    console = results()
    if shown:
        console.print(_table(shown, settings.project))
    else:
        console.print(f"{cell(settings.project)} has no automations there.")
        aside("To apply what is declared: penstock apply")
    for line in shown:
        if line.reason is not None and line.last_failed is not None:
            console.print(
                f"{moment(line.last_failed)}  [red]{cell(line.name)} could not act[/red]: {cell(line.reason)}",
                soft_wrap=True,
            )
    if not complete:
        aside("There are more failures than were read; the reasons of the oldest are missing.")
    if hidden := len(lines) - len(shown):
        aside(f"{hidden} of others: penstock automations --all")


def _read(settings: Settings, now: datetime) -> tuple[list[Past], bool]:
    from penstock.automations.history import past_of
    from penstock.outbox.prefect_history import EXECUTED, FAILED, TRIGGERED, PrefectHistory

    if not settings.prefect_api_url:
        raise NotRunning("no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`")
    # A minute for a server whose clock is ahead.
    until = now + timedelta(minutes=1)
    server = PrefectHistory(settings.prefect_api_url, settings.prefect_auth.get_secret_value())
    try:
        failures = server.last_failures(since=now - _LATELY, until=until)
        lines = past_of(
            server.automations(),
            fired=server.counts(TRIGGERED, since=now - _EVER, until=until),
            acted=server.counts(EXECUTED, since=now - _LATELY, until=until),
            failed=server.counts(FAILED, since=now - _LATELY, until=until),
            failures=failures.actions,
        )
    finally:
        server.close()
    return lines, failures.complete


def _table(lines: list[Past], project: str) -> object:
    columns = ["automation", "is", "owner", "last fired", "acted (24 h)", "failed (24 h)"]
    rows = [
        [
            line.name,
            "enabled" if line.enabled else "paused",
            "this project" if line.owner == project else line.owner or "nobody",
            line.last_fired,
            line.acted,
            line.failed,
        ]
        for line in lines
    ]
    return table(columns, rows)
