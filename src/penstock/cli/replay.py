"""`penstock replay`: load again what is in quarantine, was lost, or, with `--force`, is loaded."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.completing import datasets
from penstock.cli.completing import keys as keys_there
from penstock.cli.output import aside
from penstock.cli.running import NOTHING_RUNS, nothing_runs
from penstock.cli.why import as_key
from penstock.ledger.states import MOVES
from penstock.model import State
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.wiring import open_ledger

if TYPE_CHECKING:
    from penstock.ledger.replay import Done, Selection

_ASK_BEYOND = 100
_AGE = re.compile(r"(\d{1,9})([smhdw])")
SINCE = "Came to its state at or after WHEN (ISO or 2h/30m/7d; without a zone: local time)."
# What a replay may move, but for what a run has.
_REPLAYABLE = [state for state in State if State.PENDING in MOVES[state] and state is not State.CLAIMED]
_WOULD = {"replayed": "would_replay", "dropped": "would_drop"}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def since(text: str, now: datetime) -> datetime:
    """The moment that a date, a time or an age such as `2h` means; without a zone it is the reader's. ValueError."""
    age = _AGE.fullmatch(text)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone()
    except OverflowError:
        raise ValueError(text) from None


def when(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """An option's moment, as `since` reads it; a usage error for anything else."""
    if text is None:
        return None
    from penstock.ledger.database import utc_now

    try:
        return since(text, utc_now())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a date, a time (2026-03-01T12:00) nor an age (30m, 2h, 7d)"
        ) from None


@click.command()
@click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=keys_there)
@click.option("--dataset", shell_complete=datasets, help="Only of this dataset; with KEY, what fits both.")
@click.option("--since", "moment", metavar="WHEN", callback=when, help=SINCE)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in _REPLAYABLE]),
    help="Only what is so. Without it and without KEY: what is in quarantine, with --force also what is loaded.",
)
@click.option("--force", is_flag=True, help="Also what is loaded: its rows are replaced.")
@click.option("--rejected", is_flag=True, help="Of what is loaded only the rows that were rejected; the others stay.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask, though it be more than 100.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def replay(
    project_dir: Path,
    keys: Sequence[str],
    dataset: str | None,
    moment: datetime | None,
    states: Sequence[str],
    force: bool,
    rejected: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Load again: each KEY, or what is stuck of a dataset.

    KEY is an object's key, a path in the inbox, or a delivery's id (source:id where several sources have it). Of a key
    its newest generation is meant, and those in quarantine; key@2 is the second generation, key#3 the third delivery of
    an envelope, and bucket/key@1#3 exactly one. KEY, --dataset, --since and --state narrow each other.

    With --rejected, after the declaration was mended: of what is loaded the rows that were rejected, which are added if
    they are good by now. Which there are: penstock quarantine rejected. What is in quarantine as a whole is replayed
    without it.

    Above 100 objects it asks, or without a terminal wants --yes. Exit code: 0 all done, 1 something was refused or not
    found, 2 wrong usage.
    """
    from penstock.ledger.replay import Selection

    if not keys and dataset is None:
        raise click.UsageError("say what: KEY, or --dataset NAME")
    if rejected and (force or states):
        raise click.UsageError("--rejected is about rows of what is loaded: leave out --force and --state")
    meant = frozenset(State(state) for state in states)
    if not meant and not keys and not rejected:
        meant = frozenset({State.QUARANTINED, State.LOADED} if force else {State.QUARANTINED})
    selection = Selection(keys=tuple(keys), dataset=dataset, since=moment, states=meant, rejected=rejected)
    replay_selection(project_dir, selection, force=force, dry_run=dry_run, yes=yes, as_json=as_json)


def replay_selection(
    project_dir: Path,
    selection: Selection,
    *,
    force: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    called: Mapping[str, str] | None = None,
) -> None:
    """Replay, or say what would be; ends with exit code 1 when anything was refused.

    `called` has another word for a full name, by which it is told.
    """
    settings = load_settings(project_dir)
    project = load_project(settings.project_dir, only=["flows"])
    if selection.dataset is not None:
        project.dataset(selection.dataset)
    selection = replace(selection, keys=tuple(as_key(settings, key) for key in selection.keys))
    ledger = open_ledger(settings)
    if dry_run or not yes:
        done = ledger.replay.plan(selection, datasets=project.datasets, force=force)
    if not dry_run:
        if not yes:
            ask(done.moved, "loaded again")
        done = ledger.replay.replay(selection, datasets=project.datasets, force=force, by=who())
    for names in (done.first, *(refusals.first for refusals in done.refused.values())):
        names[:] = [(called or {}).get(name, name) for name in names]
    whole = 0
    if selection.rejected and selection.dataset and not as_json:
        whole = len(ledger.facts.by_state(State.QUARANTINED, limit=_ASK_BEYOND + 1, dataset=selection.dataset))
    if whole:
        many = f"more than {_ASK_BEYOND}" if whole > _ASK_BEYOND else str(whole)
        click.echo(
            f"Besides, {many} of {selection.dataset} in quarantine as a whole. To load them: penstock replay --dataset "
            f"{selection.dataset}",
            err=True,
        )
    down = nothing_runs(settings)
    tell(done, "replayed", selection, force=force, dry_run=dry_run, as_json=as_json, down=down)


def tell(
    done: Done,
    what: str,
    selection: Selection,
    *,
    force: bool = True,
    dry_run: bool,
    as_json: bool,
    down: bool = False,
) -> None:
    """Print what was done and what was refused; exit code 1 when not everything was done."""
    if as_json:
        facts = asdict(done)
        facts["refused"] = [{"reason": reason, **asdict(refusals)} for reason, refusals in done.refused.items()]
        facts["other"] = [{"key": key, "name": name, "state": state} for key, (name, state) in done.other.items()]
        facts["ambiguous"] = [
            {"key": key, "deliveries": [{"name": name, "source": source} for name, source in found]}
            for key, found in done.ambiguous.items()
        ]
        facts[_WOULD[what] if dry_run else what] = facts.pop("moved")
        click.echo(json.dumps({**facts, "dry_run": dry_run}, indent=2))
    else:
        _tell(done, what, selection, force=force, dry_run=dry_run, down=down)
    if not done.complete:
        sys.exit(1)


def who() -> str:
    """Who asks, for the history: `user@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _tell(done: Done, what: str, selection: Selection, *, force: bool, dry_run: bool, down: bool) -> None:
    if done.moved:
        of = ", ".join(f"{count:,} of {dataset or '(no dataset)'}" for dataset, count in sorted(done.datasets.items()))
        click.echo(f"{'Would be ' if dry_run else ''}{what}: {of} ({_names(done.first, done.moved)})")
    for reason, refusals in done.refused.items():
        click.echo(f"Refused: {refusals.count:,} ({_names(refusals.first, refusals.count)}): {reason}", err=True)
    for key in done.unknown:
        click.echo(f"Nothing is known of {key!r}. Look: penstock why {key}", err=True)
    for key, (name, state) in done.other.items():
        click.echo(f"{key!r} is not what was asked for: {name} is {state.value}. Look: penstock why {key}", err=True)
    for key, found in done.ambiguous.items():
        click.echo(
            f"{key!r} is a delivery of more than one source, and nothing was done with it. Say which: "
            + ", or ".join(f"{source}:{key} ({name})" for name, source in found),
            err=True,
        )
    if not done.moved and done.complete and selection.rejected:
        click.echo(f"Nothing of {selection.dataset} that is loaded has rejected rows that you ask for.")
    elif not done.moved and done.complete:
        since = f", since {selection.since:%Y-%m-%d %H:%M:%S %Z}" if selection.since else ""
        loaded = State.LOADED in selection.states or force
        click.echo(
            f"Nothing of {selection.dataset} is {' or '.join(sorted(selection.states))}{since}."
            f"{'' if loaded else ' What is loaded is replaced with --force'}"
        )
    if done.moved and not dry_run:
        aside(f"Next: {NOTHING_RUNS}" if down else "Next: penstock status")


def _names(first: Sequence[str], count: int) -> str:
    return ", ".join(first) + (", …" if count > len(first) else "")


def ask(count: int, what: str) -> None:
    """Above 100 go on only when somebody says so; a usage error where nobody can."""
    if count <= _ASK_BEYOND:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{count:,} objects would be {what}: say --yes, or look first with --dry-run")
    click.confirm(f"{count:,} objects will be {what}. Go on?", abort=True, err=True)
