"""`penstock plan`: what `penstock apply` would do. Changes nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from penstock.cli.faulty import refuse_faulty
from penstock.cli.output import aside, results
from penstock.cli.planning import make_plan, with_prefect
from penstock.cli.show_plan import plan_facts, plan_lines
from penstock.errors import PenstockError, SettingsError
from penstock.plan import Plan
from penstock.project import load_project
from penstock.settings import load_settings


@click.command()
@click.option("--prune", is_flag=True, help="Also delete what the project owns and no longer declares.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Keep the plan, for: penstock apply FILE.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 0: nothing to do, 1: error, 2: changes.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def plan(project_dir: Path, prune: bool, out: Path | None, detailed_exitcode: bool, as_json: bool) -> None:
    """What `penstock apply` would create, change and delete on the project's Prefect server."""
    try:
        made = planned_for(project_dir, prune=prune)
    except PenstockError as error:
        if not detailed_exitcode:
            raise
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
    if out:
        _keep(out, {**plan_facts(made), "prune": prune})
    if as_json:
        click.echo(json.dumps(plan_facts(made), indent=2, default=str))
    else:
        console = results()
        for line in plan_lines(made):
            console.print(line, soft_wrap=True)
        aside(_next(made, prune=prune, out=out))
    if made.errors:
        sys.exit(1)
    if detailed_exitcode and made.to_do:
        sys.exit(2)


def _keep(out: Path, facts: dict[str, Any]) -> None:
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise SettingsError(f"the plan cannot be kept in {out}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        json.dump(facts, file, indent=2, default=str)


def planned_for(project_dir: Path, *, prune: bool) -> Plan:
    """The plan of a project."""
    settings = load_settings(project_dir)
    # Before a server is asked for: what is wrong in the files is to be seen without one.
    refuse_faulty(settings, load_project(settings.project_dir, only=["flows"]))
    return with_prefect(settings, lambda client: make_plan(client, settings, prune=prune)).plan


def _next(made: Plan, *, prune: bool, out: Path | None) -> str:
    if made.errors:
        return "Nothing can be applied until the errors are mended."
    if not made.to_do:
        return "Everything is as declared."
    what = f" {out}" if out else " --prune" if prune else ""
    return f"Next: penstock apply{what}"
