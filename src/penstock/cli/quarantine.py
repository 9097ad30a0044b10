"""`penstock quarantine`: what cannot be loaded, why, and what is to become of it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
from rich.console import Console

from penstock.cli.completing import datasets, quarantined
from penstock.cli.known import check_dataset
from penstock.cli.output import aside, results
from penstock.cli.rejected import rejected
from penstock.cli.replay import SINCE, ask, replay, tell, when, who
from penstock.cli.show import cell, moment
from penstock.cli.why import as_key
from penstock.model import NOTIFICATIONS_BUCKET, REFUSED_BUCKET, State
from penstock.settings import load_settings, without_login
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.ledger.facts import Story

_MOST_SHOWN = 100


@click.group()
def quarantine() -> None:
    """What cannot be loaded, why, and what is to become of it.

    Single rows that were rejected are in the table DATASET__rejected: penstock quarantine rejected DATASET.
    """


@quarantine.command()
@click.option("--dataset", shell_complete=datasets, help="Only of this dataset.")
@click.option("--since", metavar="WHEN", callback=when, help=SINCE)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def ls(project_dir: Path, dataset: str | None, since: datetime | None, limit: int, as_json: bool) -> None:
    """What is in quarantine, the newest first. With --json, `more` says whether there is more than the limit."""
    settings = load_settings(project_dir)
    facts = open_ledger(settings).facts
    found = facts.by_state(State.QUARANTINED, limit=limit + 1, dataset=dataset, since=since)
    if dataset is not None and not found:
        check_dataset(settings, dataset)
    stories = found[:limit]
    if as_json:
        _print_json([asdict(story) for story in stories], more=len(found) > limit)
        return
    if not stories:
        click.echo("Nothing is in quarantine" + (" that you ask for." if dataset or since else "."))
        return
    console = results()
    for story in stories:
        # A name on a line that is not broken can be copied.
        delivery = f" ({story.source}:{story.delivery})" if story.delivery else ""
        tried = f", {story.attempts:,} failed attempts" if story.attempts else ""
        console.print(f"[bold]{cell(story.name)}[/bold]{cell(delivery)}", soft_wrap=True)
        console.print(
            f"  {story.dataset or '(no dataset)'}, since {moment(story.changed_at)}{tried}: {cell(story.reason)}",
            soft_wrap=True,
        )
    if len(found) > limit:
        aside(f"There are more than these {limit}: ask with --limit, --dataset or --since")
    aside("One of them: penstock quarantine show NAME. Load it again: penstock quarantine replay NAME")


@quarantine.command()
@click.argument("key", shell_complete=quarantined)
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def show(project_dir: Path, key: str, as_json: bool) -> None:
    """Why KEY is in quarantine, and every attempt to load it. KEY is written as for penstock replay."""
    settings = load_settings(project_dir)
    facts = open_ledger(settings).facts
    found = facts.stories(as_key(settings, key), limit=_MOST_SHOWN + 1, state=State.QUARANTINED)
    stories = found[:_MOST_SHOWN]
    if as_json:
        told = [
            {
                **asdict(story),
                "links": {f.run: link for f in story.facts if (link := run_link(settings.prefect_api_url, f.run))},
            }
            for story in stories
        ]
        _print_json(told, more=len(found) > _MOST_SHOWN)
    elif not stories:
        click.echo(f"{key} is not in quarantine. What became of it: penstock why {key}", err=True)
    else:
        console = results()
        for story in stories:
            _tell(console, story, settings.prefect_api_url)
        if len(found) > _MOST_SHOWN:
            aside(f"There are more than these {_MOST_SHOWN}: penstock quarantine ls")
    if not stories:
        sys.exit(1)


def _replay_quarantined() -> click.Command:
    """`penstock replay --state quarantined`, under the name by which it is looked for here."""
    assert replay.callback is not None
    return click.Command(
        "replay",
        callback=partial(replay.callback, states=(State.QUARANTINED.value,), force=False, rejected=False),
        params=[param for param in replay.params if param.name not in ("states", "force", "rejected")],
        help="Load again what is in quarantine: penstock replay --state quarantined.\n\n"
        + "\n\n".join(part for part in (replay.help or "").split("\n\n")[1:] if "--rejected" not in part),
    )


quarantine.add_command(_replay_quarantined())
quarantine.add_command(rejected)


@quarantine.command()
@click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=quarantined)
@click.option("--dataset", shell_complete=datasets, help="Only of this dataset; with KEY, what fits both.")
@click.option("--reason", default="", help="Why, for whoever asks later.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask, though it be more than 100.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def drop(
    project_dir: Path,
    keys: Sequence[str],
    dataset: str | None,
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Give up what is in quarantine: each KEY, or all of a dataset. KEY is written as for penstock replay.

    `penstock replay` takes it up again. A file that was refused in the inbox comes again when it has changed there.

    Above 100 objects it asks, or without a terminal wants --yes. Exit code: 0 all done, 1 something was not found,
    2 wrong usage.
    """
    from penstock.ledger.replay import Selection

    if not keys and dataset is None:
        raise click.UsageError("say what: KEY, or --dataset NAME")
    settings = load_settings(project_dir)
    meant = tuple(as_key(settings, key) for key in keys)
    selection = Selection(keys=meant, dataset=dataset, states=frozenset({State.QUARANTINED}))
    ledger = open_ledger(settings).replay
    if dry_run or not yes:
        done = ledger.drop(selection, by=who(), dry=True)
        if dataset is not None and not keys and not done.moved:
            check_dataset(settings, dataset)
    if not dry_run:
        if not yes:
            ask(done.moved, "given up")
        done = ledger.drop(selection, by=who(), reason=reason)
    tell(done, "dropped", selection, dry_run=dry_run, as_json=as_json)


def run_link(prefect_api_url: str, run: str | None) -> str | None:
    """Where Prefect's UI shows a run; None where there is no server or it was no run of Prefect's."""
    try:
        UUID(run or "")
    except ValueError:
        return None
    if not prefect_api_url:
        return None
    return f"{without_login(prefect_api_url).rstrip('/').removesuffix('/api')}/runs/flow-run/{run}"


def _print_json(told: list[dict[str, Any]], *, more: bool) -> None:
    click.echo(json.dumps({"quarantined": told, "more": more}, indent=2, default=str))


def _tell(console: Console, story: Story, prefect_api_url: str) -> None:
    console.print(f"[bold]{cell(story.name)}[/bold]  {story.dataset or '(no dataset)'}", soft_wrap=True)
    console.print(f"  in quarantine since {moment(story.changed_at)}: {cell(story.reason)}", soft_wrap=True)
    if story.delivery:
        console.print(f"  delivery {cell(story.delivery)} of {cell(story.source)}", soft_wrap=True)
    if story.attempts or story.hiccups:
        console.print(
            f"  {story.attempts} runs failed or died with it, and {story.hiccups} met a transient error", soft_wrap=True
        )
    console.print(f"  {moment(story.arrived_at)}  arrived by {story.via.value}, {story.size:,} bytes", soft_wrap=True)
    for fact in story.facts:
        console.print(f"  {moment(fact.at)}  {fact.what}: {cell(fact.detail)}", soft_wrap=True)
        if fact.run:
            console.print(f"    run {run_link(prefect_api_url, fact.run) or fact.run}", soft_wrap=True)
    if story.name.startswith(f"{REFUSED_BUCKET}/"):
        console.print("  next: mend it, and drop the file into the inbox again", soft_wrap=True)
        return
    name = cell(shlex.quote(story.name))
    if story.name.startswith(f"{NOTIFICATIONS_BUCKET}/"):
        console.print(f"  next: mend what sends it, then penstock quarantine drop {name}", soft_wrap=True)
        return
    console.print(
        f"  next: mend it, then penstock quarantine replay {name}; or penstock quarantine drop {name}", soft_wrap=True
    )
