"""`penstock quarantine`: what cannot be loaded, why, and what is to become of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click
from rich.console import Console

from penstock.cli.replay import replay_selection, tell, when, who
from penstock.cli.show import cell, moment, table
from penstock.cli.why import as_key
from penstock.ledger.facts import Story
from penstock.ledger.replay import Selection
from penstock.model import REFUSED_BUCKET, State
from penstock.settings import load_settings
from penstock.wiring import open_ledger

_QUARANTINED = frozenset({State.QUARANTINED})


@click.group()
def quarantine() -> None:
    """What cannot be loaded, why, and what is to become of it."""


@quarantine.command()
@click.option("--dataset", help="Only of this dataset.")
@click.option("--since", metavar="WHEN", callback=when, help="In quarantine since then: a date, a time, 2h, 7d.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def ls(project_dir: Path, dataset: str | None, since: datetime | None, limit: int, as_json: bool) -> None:
    """What is in quarantine, the newest first."""
    facts = open_ledger(load_settings(project_dir)).facts
    found = facts.by_state(State.QUARANTINED, limit=limit + 1, dataset=dataset, since=since)
    stories = found[:limit]
    if as_json:
        click.echo(json.dumps([asdict(story) for story in stories], indent=2, default=str))
        return
    if not stories:
        click.echo("Nothing is in quarantine" + (" that you ask for." if dataset or since else "."))
        return
    console = Console(highlight=False)
    rows = [
        [story.delivery or story.key, story.dataset or "(no dataset)", story.changed_at, story.attempts, story.reason]
        for story in stories
    ]
    console.print(table(["key", "dataset", "since", "attempts", "reason"], rows))
    if len(found) > limit:
        console.print(f"There are more than these {limit}: ask with --limit, --dataset or --since")
    console.print("One of them: penstock quarantine show KEY. Load it again: penstock quarantine replay KEY")


@quarantine.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def show(project_dir: Path, key: str, as_json: bool) -> None:
    """Why KEY is in quarantine, and every attempt to load it."""
    settings = load_settings(project_dir)
    stories = [
        story
        for story in open_ledger(settings).facts.stories(as_key(settings, key))
        if story.state is State.QUARANTINED
    ]
    if as_json:
        told = [
            {
                **asdict(story),
                "links": {f.run: link for f in story.facts if (link := run_link(settings.prefect_api_url, f.run))},
            }
            for story in stories
        ]
        click.echo(json.dumps(told, indent=2, default=str))
    elif not stories:
        click.echo(f"{key} is not in quarantine. What became of it: penstock why {key}", err=True)
    else:
        console = Console(highlight=False)
        for story in stories:
            _tell(console, story, settings.prefect_api_url)
    if not stories:
        sys.exit(1)


@quarantine.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask, however many.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def replay(project_dir: Path, keys: Sequence[str], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Load each KEY again that is in quarantine."""
    selection = Selection(keys=tuple(keys), states=_QUARANTINED)
    replay_selection(project_dir, selection, force=False, dry_run=dry_run, yes=yes, as_json=as_json)


@quarantine.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--reason", default="", help="Why, for whoever asks later.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def drop(project_dir: Path, keys: Sequence[str], reason: str, as_json: bool) -> None:
    """Give up each KEY that is in quarantine; `penstock replay` takes it up again."""
    settings = load_settings(project_dir)
    selection = Selection(keys=tuple(as_key(settings, key) for key in keys), states=_QUARANTINED)
    done = open_ledger(settings).replay.drop(selection, by=who(), reason=reason)
    tell(done, "dropped", selection, as_json=as_json)


def run_link(prefect_api_url: str, run: str | None) -> str | None:
    """Where Prefect's UI shows a run; None where there is no server or it was no run of Prefect's."""
    try:
        UUID(run or "")
    except ValueError:
        return None
    if not prefect_api_url:
        return None
    return f"{prefect_api_url.rstrip('/').removesuffix('/api')}/runs/flow-run/{run}"


def _tell(console: Console, story: Story, prefect_api_url: str) -> None:
    console.print(f"[bold]{cell(story.name)}[/bold]  {story.dataset or '(no dataset)'}", soft_wrap=True)
    console.print(f"  in quarantine since {moment(story.changed_at)}: {cell(story.reason)}", soft_wrap=True)
    if story.delivery:
        console.print(f"  delivery {cell(story.delivery)}", soft_wrap=True)
    console.print(
        f"  {story.attempts} attempts failed or died, and {story.hiccups} met a transient error", soft_wrap=True
    )
    console.print(f"  {moment(story.arrived_at)}  arrived by {story.via.value}, {story.size:,} bytes", soft_wrap=True)
    for fact in story.facts:
        console.print(f"  {moment(fact.at)}  {fact.what}: {cell(fact.detail)}", soft_wrap=True)
        if fact.run:
            console.print(f"    run {run_link(prefect_api_url, fact.run) or fact.run}", soft_wrap=True)
    if story.name.startswith(f"{REFUSED_BUCKET}/"):
        console.print("  next: mend it, and drop the file into the inbox again", soft_wrap=True)
        return
    name = cell(story.delivery or story.key)
    console.print(
        f"  next: mend it, then penstock quarantine replay {name}; or penstock quarantine drop {name}", soft_wrap=True
    )
