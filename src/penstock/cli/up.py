"""`penstock up`: everything for this project, supervised, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from penstock.cli.main import start_logging
from penstock.cli.output import chatter, results
from penstock.cli.show import one_line
from penstock.errors import LedgerUnavailable
from penstock.model import State
from penstock.settings import SECRETS_FILE, load_settings, masked
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.cli.stack import Stack

_LOOK_SECONDS = 0.5


@click.command()
@click.pass_obj
def up(project_dir: Path) -> None:
    """Start everything for this project and show what arrives, until Ctrl-C."""
    from penstock.cli.stack import running_stack

    console, beside = results(), chatter()
    settings = load_settings(project_dir)
    start_logging("WARNING")
    ended = _Ended()
    beside.print(f"[bold]penstock[/bold] {settings.project}: starting, about 10 s", soft_wrap=True)
    with running_stack(
        project_dir, say=lambda line: beside.print(f"  {line}", soft_wrap=True), env=dict(os.environ)
    ) as stack:
        _introduce(beside, stack)
        _follow(console, stack, ended)
        beside.print("Ending; nothing is lost: what waits is loaded at the next `penstock up`.", soft_wrap=True)


class _Ended:
    """Set by Ctrl-C or SIGTERM; a start that is under way is broken off."""

    def __init__(self) -> None:
        self.asked = False
        self.started = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True
        if not self.started:
            raise KeyboardInterrupt


def _introduce(console: Console, stack: Stack) -> None:
    settings = stack.settings
    warehouse = masked(settings.warehouse_url.get_secret_value()) or settings.warehouse
    lines = [
        f"applied     {len(stack.applied.changes)} deployments and automations, {len(stack.applied.to_do)} changed",
        f"inbox       {settings.inbox}/<dataset>/",
        f"warehouse   {warehouse}   (penstock query 'select …')",
        f"datasets    {', '.join(dataset.name for dataset in stack.project.datasets)}",
        f"sources     {', '.join(f'/hooks/{source.name}' for source in stack.project.sources) or 'none'}",
        f"secrets     {settings.home / SECRETS_FILE}   (mode 600; the Prefect UI asks for PENSTOCK_PREFECT_AUTH)",
    ]
    if stack.console_url:
        lines.insert(0, f"console     {stack.console_url}")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)
    console.print("Ready. Drop a file into the inbox, or: penstock send SOURCE FILE.  Ctrl-C ends it.", soft_wrap=True)


def _follow(console: Console, stack: Stack, ended: _Ended) -> None:
    from penstock.ledger.database import utc_now

    ended.started = True
    ledger = open_ledger(stack.settings)
    shown: dict[int, State] = {}
    after, away = utc_now(), False
    while not ended.asked:
        for line in stack.supervisor.watch():
            console.print(f"[red]{line}[/red]", soft_wrap=True)
        try:
            # The clock may have been put back.
            after = min(after, utc_now())
            stories, away = ledger.facts.recent(after=after), False
        except LedgerUnavailable as error:
            if not away:
                console.print(f"[red]{error}[/red]", soft_wrap=True)
            stories, away = [], True
        for story in stories:
            # Looked at again for two seconds: on another machine's clock a commit may show late.
            after = max(after, story.changed_at - timedelta(seconds=2))
            if story.state is State.CLAIMED or shown.get(story.id) is story.state:
                continue
            shown[story.id] = story.state
            console.print(one_line(story), soft_wrap=True)
        if len(shown) > 10_000:
            shown = dict(list(shown.items())[-1000:])
        time.sleep(_LOOK_SECONDS)
