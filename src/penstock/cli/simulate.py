"""`penstock simulate`: which automations would fire, on which events, with which parameters; why others would not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from penstock.cli.output import results
from penstock.errors import DeclarationError
from penstock.ownership import owner_tag
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from penstock.automations.forms import Form
    from penstock.automations.simulate import Simulation

_HELP = """Which automations would fire, on which events, with which parameters; and for those that do not, why not.

Prefect's own evaluation decides, in the events' own time: 'nothing for 6 hours' answers at once, with --until 6h.
Nothing is done and, but for --last and --diff, no server is asked.

\b
An EVENT is its name, a dataset where it is one of penstock's, and words:
  -e 'loaded sales rows=3'              penstock.dataset.loaded, 3 rows
  -e 'quarantined sales x3 +10s'        three, ten seconds apart
  -e 'my.event resource=my.thing.1 related.owner=me.7 label.colour=red size=4 +10m'
Short names: arrived, pending, loaded, quarantined, lost DATASET; accepted SOURCE. +TIME is since the event before;
any other NAME=VALUE is a field of the payload.

Ends with 0; with 1 where the server fails, an action fails in rendering, or a simulation is stopped (an automation
fires itself without end, or is due too often); with 2 for what is wrong in an event or a declaration.
"""

_PAGE = 50
_FIRINGS = frozenset({"prefect.automation.triggered", "prefect.automation.resolved"})


class _Span(click.ParamType[timedelta]):
    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from penstock.automations.described import span

        if isinstance(value, timedelta):
            return value
        try:
            return span(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(help=_HELP)
@click.option(
    "--events",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Prefect's events, one JSON a line.",
)
@click.option("--last", type=_Span(), help="What the server recorded in so long a time, such as 6h.")
@click.option("-e", "--event", "texts", multiple=True, metavar="EVENT", help="An event in words; as often as you like.")
@click.option(
    "--until",
    type=_Span(),
    help="Look so long after the last event (with --last, after now): for what waits for nothing.",
)
@click.option("--only", multiple=True, metavar="NAME", help="Only the automation of that name, or part of it.")
@click.option("--diff", "diff", is_flag=True, help="Compare the code with what is applied on the server.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def simulate(
    project_dir: Path,
    file: Path | None,
    last: timedelta | None,
    texts: Sequence[str],
    until: timedelta | None,
    only: Sequence[str],
    diff: bool,
    as_json: bool,
) -> None:
    """Which automations would fire, on which events, with which parameters; why others would not."""
    from penstock.automations.described import described, from_lines
    from penstock.automations.engine import engine, received
    from penstock.automations.simulate import as_event, compared
    from penstock.automations.simulate import simulate as simulated
    from penstock.cli.show_simulation import compared_lines, simulation_facts, simulation_lines

    if not file and last is None and not texts and until is None:
        raise click.UsageError("of which events? --events FILE, --last 6h, -e 'loaded sales', or --until 6h for none")
    settings = load_settings(project_dir)
    now = datetime.now(UTC).replace(microsecond=0)
    declared = _declared(settings)
    since = now - last if last is not None else None
    recorded, applied = _ask(settings, since, now, applied=diff) if since or diff else ([], [])
    forms = _named(_as_applied(declared, applied), only)
    events = [
        *(from_lines(file) if file else []),
        *(as_event(event, where=f"event {event.get('id')}") for event in _not_made_here(recorded, declared, applied)),
        *described(texts, project=settings.project, begin=now),
    ]
    end: datetime | timedelta | None = until
    if since:
        # What was recorded lasts until now, whether or not something happened at the end of it.
        last_event = max([now, *map(received, events)])
        end = last_event + (until or timedelta(0))
    asked = engine(settings.prefect_api_url.removesuffix("/api"))
    after = simulated(forms, events, now=now, start=since, until=end, asked=asked)
    before = None
    if diff:
        owned = [form for form in applied if not only or any(name in form["name"] for name in only)]
        before = simulated(owned, events, now=now, start=since, until=end, asked=asked)
    difference = compared(before, after) if before else None
    if as_json:
        click.echo(json.dumps(simulation_facts(after, difference), indent=2, default=str))
    else:
        lines = simulation_lines(after)
        if before and difference:
            lines += compared_lines(difference, before, after)
        console = results()
        for line in lines:
            console.print(line, soft_wrap=True)
    if failed := _failures(after):
        for line in failed.lines:
            click.echo(f"penstock: {line}", err=True)
        sys.exit(failed.code)


@dataclass(frozen=True)
class _Failures:
    lines: list[str]
    code: int


def _failures(found: Simulation) -> _Failures | None:
    """What is wrong with what was simulated, and how the command ends for it."""
    refused = [one.refused for one in found.automations if one.refused]
    lines = []
    if found.endless:
        lines.append("an automation fires of its own firing, without end; it was stopped")
    if found.stopped:
        lines.append(
            f"what waits for nothing to happen is due too often; it was stopped at {found.until.astimezone()}: "
            "a shorter --until or --last, or --only"
        )
    broken = [
        one.name
        for one in found.automations
        if any(rendered.errors for firing in one.outcome.firings for rendered in firing.actions)
    ]
    lines += [f"an action of automation {name!r} fails in rendering" for name in broken]
    if not lines and not refused:
        return None
    return _Failures([*refused, *lines], 2 if refused else 1)


def _declared(settings: Settings) -> list[Form]:
    from penstock.automations.forms import form_of
    from penstock.project import load_project

    project = load_project(settings.project_dir, only=("automations",))
    return [form_of(automation, project=settings.project) for automation in project.automations]


def _named(forms: Sequence[Form], only: Sequence[str]) -> list[Form]:
    found = [form for form in forms if not only or any(name in form["name"] for name in only)]
    if only and not found:
        names = ", ".join(repr(form["name"]) for form in forms) or "none"
        raise DeclarationError(f"no automation is named like {', '.join(map(repr, only))}; there are: {names}")
    return found


def _as_applied(forms: Sequence[Form], applied: Sequence[Form]) -> list[Form]:
    """What the code leaves open is as on the server: a paused automation is not woken, a flow has Prefect's name."""
    from penstock.automations.forms import as_deployed, references

    deployments = {name for form in applied for kind, name in references(form) if kind == "deployment"}
    forms = [as_deployed(form, deployments) for form in forms]
    there = {form["name"]: form["enabled"] for form in applied if "enabled" in form}
    return [{"enabled": there[form["name"]], **form} if form["name"] in there else form for form in forms]


def _ask(
    settings: Settings, since: datetime | None, until: datetime, *, applied: bool
) -> tuple[list[dict[str, Any]], list[Form]]:
    from penstock.automations.server import read_server
    from penstock.cli.planning import with_prefect

    async def work(client: PrefectClient) -> tuple[list[dict[str, Any]], list[Form]]:
        events = await recorded_events(client, since, until) if since else []
        if not applied:
            return events, []
        tag = owner_tag(settings.project)
        server = await read_server(client)
        return events, [dict(one.form) for one in server.automations if tag in one.tags]

    return with_prefect(settings, work)


def _not_made_here(recorded: Sequence[dict[str, Any]], *versions: Sequence[Form]) -> list[dict[str, Any]]:
    """Without the firings of the automations themselves, which are found out anew."""
    names = {form["name"] for forms in versions for form in forms}
    return [
        event
        for event in recorded
        if event["event"] not in _FIRINGS or event["resource"].get("prefect.resource.name") not in names
    ]


async def recorded_events(client: PrefectClient, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Every event that Prefect's server recorded from `since` to `until`, the oldest first.

    Source: `POST /api/events/filter`, whose pages are at most 50, and the `next_page` of its answers. Raises
    httpx.HTTPError.
    """
    from penstock.automations.server import ask

    occurred = {"since": since.isoformat(), "until": until.isoformat()}
    page = await ask(
        client, "POST", "/events/filter", {"limit": _PAGE, "filter": {"occurred": occurred, "order": "ASC"}}
    )
    found: list[dict[str, Any]] = list(page["events"])
    while page["next_page"]:
        # Its host is what the server takes for its own.
        page = await ask(client, "GET", f"/events/filter/next?{urlsplit(page['next_page']).query}")
        found += page["events"]
    return found
