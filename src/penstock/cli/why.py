"""`penstock why KEY`: what happened to an object or a delivery, when, in which run, and what is next."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from penstock.cli.completing import keys
from penstock.cli.delivery_body import call, refused_of
from penstock.cli.failed_actions import Concerned, failed_actions
from penstock.cli.in_the_table import Gone, gave_way, gone_of, where_rows_give_way
from penstock.cli.next_steps import IN_THE_TABLE, next_of
from penstock.cli.output import results
from penstock.cli.running import nothing_runs
from penstock.cli.show import STYLES, cell, moment
from penstock.cli.show_refused import refused_facts, refused_lines
from penstock.model import State
from penstock.settings import Settings, load_settings
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.ledger.facts import Story
    from penstock.outbox.prefect_history import FailedAction


@click.command()
@click.argument("key", shell_complete=keys)
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def why(project_dir: Path, key: str, as_json: bool) -> None:
    """What happened to KEY.

    KEY is an object's key (key@2: its second generation), a path in the inbox, the id of a delivery or a request, or
    rejected/N: what was refused, of sources that keep it.
    """
    settings = load_settings(project_dir)
    ledger = open_ledger(settings)
    stories = ledger.facts.stories(as_key(settings, key))
    refused = refused_of(ledger, key)
    manifests = ledger.announcements.naming(as_key(settings, key)) if not stories else []
    concerned = failed_actions(settings, stories, datetime.now(UTC))
    gone = _gone(settings, stories)
    if as_json:
        told = [_facts(story, concerned, gone) for story in stories]
        told += [{**refused_facts(one), "state": "refused"} for one in refused]
        click.echo(json.dumps(told, indent=2, default=str))
    elif not stories and not refused and manifests:
        click.echo(f"{key} is not there, though {', '.join(manifests)} named it. It is loaded as soon as it comes.")
    elif not stories and not refused:
        click.echo(
            f"Nothing is known of {key!r}. A file still being written is recorded when its writer closes it; "
            "to compare bucket and ledger now: penstock sweep",
            err=True,
        )
    else:
        console = results()
        down = nothing_runs(settings)
        for story in stories:
            _tell(console, story, concerned.of.get(story.id, ()), gone=gone, down=down)
        for one in refused:
            for line in refused_lines(one):
                console.print(line, soft_wrap=True)
            console.print(f"  next: penstock deliveries show {call(one)}", soft_wrap=True)
        if concerned.note:
            console.print(f"[dim]{cell(concerned.note)}[/dim]", soft_wrap=True)
    if not stories and not refused:
        sys.exit(1)


def as_key(settings: Settings, key: str) -> str:
    """The key of a path in the inbox; anything else as it is."""
    path = Path(key)
    if path.is_absolute() and path.is_relative_to(settings.inbox):
        return path.relative_to(settings.inbox).as_posix()
    inbox = (
        settings.inbox.relative_to(settings.project_dir)
        if settings.inbox.is_relative_to(settings.project_dir)
        else settings.inbox
    )
    return key.removeprefix(f"{inbox}/")


def _gone(settings: Settings, stories: Sequence[Story]) -> Gone:
    """Nobody is asked where rows are only appended: these stay."""
    if not any(_has_rows(story) for story in stories):
        return Gone()
    merging = where_rows_give_way(settings)
    return gone_of(
        settings, [one.name for one in stories if _has_rows(one) and (merging is None or one.dataset in merging)]
    )


def _has_rows(story: Story) -> bool:
    return story.state is State.LOADED and bool(story.rows)


def _facts(story: Story, concerned: Concerned, gone: Gone) -> dict[str, Any]:
    failed = [
        {"at": one.at, "automation": one.automation, "action": one.action, "reason": one.reason}
        for one in concerned.of.get(story.id, ())
    ]
    return {**asdict(story), "failed_actions": failed if concerned.asked else None, **_gone_facts(story, gone)}


def _gone_facts(story: Story, gone: Gone) -> dict[str, Any]:
    """`gone` is None where no row can be gone, or nobody knows: then `not_asked` says why."""
    asked = story.name in gone.asked
    return {"gone": gone.rows.get(story.name), "not_asked": gone.not_asked if asked else None}


def _rows_told(story: Story, gone: Gone) -> str:
    if story.name in gone.asked and gone.not_asked is not None:
        return (
            "its rows were loaded; whether others took their place is not known, the warehouse was not asked: "
            f"{gone.not_asked}"
        )
    lost = gone.rows.get(story.name, 0)
    return gave_way(story.rows or 0, lost) if lost else IN_THE_TABLE


def _tell(console: Console, story: Story, failed: Sequence[FailedAction], *, gone: Gone, down: bool) -> None:
    from penstock.ledger.waiting import MARKER, MARKER_REMOVED

    style = STYLES.get(story.state, "dim")
    console.print(f"[bold]{cell(story.name)}[/bold]  [{style}]{story.state.value}[/{style}]", soft_wrap=True)
    console.print(f"  {moment(story.arrived_at)}  arrived by {story.via.value}, {story.size:,} bytes", soft_wrap=True)
    if story.delivery:
        request = f", request {cell(story.request)}" if story.request else ""
        console.print(f"  delivery {cell(story.delivery)}{request}", soft_wrap=True)
    for fact in story.facts:
        run = f"  (run {fact.run})" if fact.run else ""
        console.print(f"  {moment(fact.at)}  {fact.what}: {cell(fact.detail)}{run}", soft_wrap=True)
    for one in failed:
        console.print(
            f"  {moment(one.at)}  automation {cell(repr(one.automation))} could not act: {cell(one.reason)}",
            soft_wrap=True,
        )
    if story.reason and not story.facts:
        console.print(f"  {moment(story.changed_at)}  {cell(story.reason)}", soft_wrap=True)
    if story.waits_for:
        console.print(f"  waits for {cell(story.waits_for)}", soft_wrap=True)
    delivery = f"{story.source}:{story.delivery}" if story.delivery else None
    removed = story.archived_at is not None
    step = next_of(
        story.state,
        name=story.name,
        delivery=delivery,
        removed=removed,
        rejected=story.rejected,
        dataset=story.dataset,
        rows=_rows_told(story, gone),
        down=down,
    )
    if story.reason in (MARKER, MARKER_REMOVED):
        step = "nothing is loaded of it; what waited for it says so itself: penstock why KEY"
    console.print(f"  next: {cell(step)}", soft_wrap=True)
