"""How a simulation looks on a terminal and to a program. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from penstock.cli.show import cell, moment

if TYPE_CHECKING:
    from penstock.automations.engine import Firing, Rendered
    from penstock.automations.simulate import Compared, Effect, Simulated, Simulation

_MOST_SHOWN = 10


def simulation_lines(found: Simulation) -> list[str]:
    """What fires, when, of what, with what; what does not, and why not."""
    lines = [line for simulated in found.automations for line in _automation(simulated, found)]
    firing = [simulated for simulated in found.automations if simulated.fires]
    times = sum(len(simulated.outcome.firings) for simulated in firing)
    return [
        *lines,
        f"{_some(len(firing), len(found.automations))}, {_times(times)}; {_count(len(found.events), 'event')}, "
        f"looked at from {moment(found.start)} to {moment(found.until)}",
    ]


def compared_lines(compared: Compared, before: Simulation, after: Simulation) -> list[str]:
    """What the change of the automations would have changed."""
    return [
        "",
        "[bold]Against what is applied on the server[/bold]",
        *(f"  [red]-[/red] {_effect(effect, before)}" for effect in compared.gone),
        *(f"  [green]+[/green] {_effect(effect, after)}" for effect in compared.new),
        f"{_count(len(compared.gone), 'action')} would not have happened, {len(compared.new)} would, "
        f"{compared.same} {'stays' if compared.same == 1 else 'stay'}",
    ]


def simulation_facts(found: Simulation, compared: Compared | None) -> dict[str, Any]:
    """The same for a program."""
    facts: dict[str, Any] = {
        "start": found.start,
        "until": found.until,
        "events": len(found.events),
        "endless": found.endless,
        "stopped": found.stopped,
        "automations": [
            {
                "name": simulated.name,
                "fires": simulated.fires,
                "refused": simulated.refused,
                "firings": [asdict(firing) for firing in simulated.outcome.firings],
                "why_not": [asdict(reason) for reason in simulated.why_not],
                "counts": [asdict(count) for count in simulated.outcome.counts],
            }
            for simulated in found.automations
        ],
    }
    if compared is not None:
        facts["diff"] = {
            "gone": [asdict(effect) for effect in compared.gone],
            "new": [asdict(effect) for effect in compared.new],
            "same": compared.same,
        }
    return facts


def _automation(simulated: Simulated, found: Simulation) -> Iterator[str]:
    name = f"[bold]{cell(simulated.name)}[/bold]"
    firings = simulated.outcome.firings
    if not firings:
        yield f"{name}  {'[red]is refused[/red]' if simulated.refused else '[dim]does not fire[/dim]'}"
        for reason in simulated.why_not:
            yield f"  {cell(reason.text)}"
        return
    yield f"{name}  [green]fires {_times(len(firings))}[/green]"
    for firing in firings[:_MOST_SHOWN]:
        yield f"  {moment(firing.at)}  {_cause(firing, found)}"
        for rendered in firing.actions:
            yield f"      {_action(rendered)}"
    if len(firings) > _MOST_SHOWN:
        yield f"  … and {_times(len(firings) - _MOST_SHOWN)} more; all of them: --json"


def _cause(firing: Firing, found: Simulation) -> str:
    labels = _pairs(firing.labels)
    for_each = f" for {labels}" if labels else ""
    if firing.event is None:
        return f"because nothing happened{for_each}"
    event = found.event(firing.event)
    if event is None:
        return f"of another automation's firing{for_each}"
    resource = event["resource"]
    subject = resource.get("prefect.resource.name") or resource["prefect.resource.id"]
    return (
        f"on {cell(event['event'])} of {cell(subject)} at {moment(datetime.fromisoformat(event['occurred']))}{for_each}"
    )


def _action(rendered: Rendered) -> str:
    from penstock.automations.forms import ID_FIELDS

    subject = next((rendered.action[name] for _, name in ID_FIELDS.values() if name in rendered.action), "")
    told = [f"{cell(name)}={cell(repr(value))}" for name, value in rendered.fields.items()]
    told += [
        f"[yellow]{cell(name)} needs the server: {', '.join(needed)}[/yellow]"
        for name, needed in rendered.needs.items()
    ]
    told += [f"[red]{cell(name)} fails: {cell(error)}[/red]" for name, error in rendered.errors.items()]
    return "  ".join(part for part in (f"{rendered.action['type']} {cell(subject)}".strip(), *told) if part)


def _effect(effect: Effect, found: Simulation) -> str:
    cause = _cause(effect.firing, found)
    return f"{moment(effect.firing.at)}  {_action(effect.rendered)}  [dim]({cell(effect.automation)}, {cause})[/dim]"


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{cell(name)}={cell(value)}" for name, value in sorted(labels.items()))


def _some(firing: int, of: int) -> str:
    return f"{firing} of {_count(of, 'automation')} would fire"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
