"""`penstock apply`: deployments and automations as declared. Applying twice changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.faulty import refuse_faulty
from penstock.cli.output import aside, results
from penstock.cli.planning import carry_out, leaving_out, make_plan, refuse_errors, with_prefect
from penstock.cli.show_plan import plan_lines
from penstock.errors import PenstockError, ServerChanged, SettingsError
from penstock.plan import BRAKE, Change, Plan
from penstock.project import load_project
from penstock.settings import Settings, load_settings
from penstock.wiring import prepare_store

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_DONE = {"create": "created", "update": "updated", "drift": "repaired", "delete": "deleted", "unchanged": "unchanged"}


def apply_project(
    settings: Settings,
    *,
    prune: bool = False,
    leave_out: str | None = None,
    agree: Callable[[Plan], None] = refuse_errors,
    say: Callable[[Change], None] = lambda change: None,
) -> Plan:
    """Plan and carry it out, if `agree` does not raise; returns the plan.

    Automations that break the rule `leave_out` are left out, instead of keeping all the others away. Raises
    ServerChanged when the server was changed in between, PrefectUnavailable.
    """

    async def work(client: PrefectClient) -> Plan:
        planned = await make_plan(client, settings, prune=prune)
        if leave_out:
            planned = leaving_out(planned, leave_out)
        agree(planned.plan)
        await carry_out(client, planned, say=say)
        return planned.plan

    return with_prefect(settings, work)


@click.command()
@click.argument("plan_file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--prune", is_flag=True, help="Also delete what the project owns and no longer declares.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--force", is_flag=True, help=f"Delete even more than {BRAKE:.0%} of what the project owns.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def apply(project_dir: Path, plan_file: Path | None, prune: bool, yes: bool, force: bool, as_json: bool) -> None:
    """Create, update and with --prune delete deployments and automations, as `penstock plan` shows.

    With PLAN_FILE, made by `penstock plan --out`, exactly that plan or nothing.
    """
    if plan_file and prune:
        raise click.UsageError("A kept plan prunes or not as it was made; leave out --prune.")
    settings = load_settings(project_dir)
    kept = _kept(plan_file) if plan_file else None
    refuse_faulty(settings, load_project(settings.project_dir, only=["flows"]))
    console = results()
    done: list[Change] = []

    def agree(plan: Plan) -> None:
        if not as_json:
            for line in plan_lines(plan):
                console.print(line, soft_wrap=True)
        refuse_errors(plan)
        if kept and kept["digest"] != plan.digest:
            raise ServerChanged(
                f"{plan_file} is not what would be done now: the server or the code was changed since. "
                "Look again: penstock plan"
            )
        _ask(plan, yes=yes, force=force, quiet=as_json)
        if settings.s3_endpoint:
            prepare_store(settings)

    def say(change: Change) -> None:
        done.append(change)
        if not as_json:
            console.print(f"{_DONE[change.kind]:<9} {change.what:<10} {change.name}", soft_wrap=True, markup=False)

    plan = apply_project(settings, prune=bool(kept["prune"]) if kept else prune, agree=agree, say=say)
    if as_json:
        facts = [{"what": one.what, "name": one.name, "done": _DONE[one.kind]} for one in plan.changes]
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{len(done)} changed, {plan.count('unchanged')} unchanged.")
    aside("Next: penstock status")


def _kept(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        return {"digest": str(found["digest"]), "prune": bool(found["prune"])}
    except (ValueError, KeyError, TypeError):
        raise SettingsError(f"{path} is no plan: make one with `penstock plan --out {path}`") from None


def _ask(plan: Plan, *, yes: bool, force: bool, quiet: bool) -> None:
    deletes = plan.count("delete")
    if not deletes:
        return
    if plan.brakes and not force:
        raise PenstockError(
            f"{deletes} of the {plan.owned} things that {plan.project} owns would be deleted, more than {BRAKE:.0%}. "
            "If that is meant: --force"
        )
    if yes:
        return
    if quiet or not sys.stdin.isatty():
        raise PenstockError(f"{deletes} would be deleted, and there is nobody to ask: give --yes")
    click.confirm(f"Delete {deletes}?", abort=True)
