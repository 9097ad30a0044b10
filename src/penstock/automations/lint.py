"""What the rules have to say about declared automations, before any of it reaches a server. Pure.

An error would be refused by the server, would never work, or fires without end; a warning is most often a slip, and
`Automation.allow` says that it is none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.server.events.schemas.automations import AutomationCreate
from pydantic import ValidationError

from penstock import events
from penstock.automations import loops, parameters, templates
from penstock.automations.define import Automation
from penstock.automations.forms import ACTIONS, ID_FIELDS, Form, Names, references, with_stand_ins
from penstock.automations.parameters import Accepts
from penstock.automations.templates import Problem, Shape
from penstock.errors import DeclarationError
from penstock.plan import NO_BLOCK, Finding

# Every rule, in the order in which its findings come, with what it finds.
RULES: Mapping[str, str] = {
    "same-name": "two automations have one name",
    "foreign-name": "an automation of that name is on the server and is not this project's",
    "unresolved": "a name that nothing has: a deployment, pool or automation; a dataset; an event of penstock",
    NO_BLOCK: "a block that the server does not have",
    "consumer": "an automation runs `ingest` for a dataset that a flow of the project's own consumes",
    "not-on-this-server": "a trigger or an action that only Prefect Cloud knows",
    "matches-everything": "a trigger that every event matches",
    "fires-itself": "what an automation does fires it again, alone or by way of others",
    "throttles": "`within` with a threshold of 1 on a trigger that runs a deployment: only the first event counts",
    "template": "a template that Prefect cannot render, or does not",
    "unknown-field": "a template names what its event does not have",
    "unknown-parameter": "the deployment takes no parameter of that name",
    "missing-parameter": "nobody gives a parameter that the deployment needs",
    "wrong-parameter-type": "a value, or what a template gives, does not fit the deployment's schema",
    "refused": "anything else for which Prefect's server would refuse the automation",
    "unknown-rule": "`allow` names a rule that does not exist",
}
_ORDER = {rule: index for index, rule in enumerate(RULES)}

_DATASET = re.compile(r"penstock\.(?P<project>.+)\.dataset\.(?P<dataset>[a-z][a-z0-9_]*)")
_FROM_AN_EVENT = re.compile(r"\{[{%][^}]*\bevent\b")


@dataclass(frozen=True, kw_only=True)
class _Declared:
    """One automation with what the rules ask for again and again."""

    form: Form
    automation: Automation
    names: Names
    schemas: Mapping[str, Accepts]

    @property
    def name(self) -> str:
        return str(self.form["name"])

    @property
    def trigger(self) -> Form:
        found: Form = self.form["trigger"]
        return found

    @property
    def leaves(self) -> list[Form]:
        return list(templates.leaves(self.trigger))

    @property
    def actions(self) -> list[tuple[str, Form]]:
        return [(where, action) for where in ACTIONS for action in self.form.get(where, [])]

    def shapes(self, where: str) -> list[Shape] | None:
        return templates.shapes_of(self.trigger, of_firing=where != "actions")


def lint(
    automations: Sequence[tuple[Form, Automation]],
    *,
    names: Names,
    schemas: Mapping[str, Accepts],
    foreign: Collection[str],
    files: Mapping[str, str],
) -> list[Finding]:
    """What the rules find in declared automations, by the automations' names and then in the order of `RULES`.

    `names` is what the server has and what this plan will create, `schemas` what each deployment takes, `foreign` the
    names of automations on the server that are not this project's, `files` where each automation is declared.
    """
    found: list[tuple[str, Problem]] = []
    for form, automation in automations:
        one = _Declared(form=form, automation=automation, names=names, schemas=schemas)
        problems = [problem for rule in _EACH for problem in rule(one)]
        if one.name in foreign and not automation.adopt:
            problems.append(_foreign())
        if not any(problem.severity == "error" for problem in problems):
            problems += _refused(one)
        found += [(one.name, one_problem) for one_problem in problems if not _is_allowed(one_problem, automation)]
    found += _same_names(automations, files)
    found += _loops(automations, names)
    where = {form["name"]: files.get(form["name"]) or files.get(automation.name) for form, automation in automations}
    findings = [_finding(name, problem, where.get(name)) for name, problem in dict.fromkeys(found)]
    return sorted(findings, key=lambda finding: (finding.name, _ORDER[finding.rule], finding.reason))


def _finding(name: str, problem: Problem, file: str | None) -> Finding:
    reason = f"{file}: {problem.reason}" if file else problem.reason
    return Finding(rule=problem.rule, severity=problem.severity, name=name, reason=reason)


def _is_allowed(problem: Problem, automation: Automation) -> bool:
    return problem.severity == "warning" and problem.rule in automation.allow


def _unknown_rules(one: _Declared) -> Iterator[Problem]:
    for rule in sorted(set(one.automation.allow) - set(RULES)):
        yield Problem("unknown-rule", "warning", f"allow names {rule!r}, which is no rule{_meant(rule, RULES)}")


def _foreign() -> Problem:
    reason = (
        "an automation of this name is on the server and was not made by this project: choose another name, or take it"
        " over with adopt=True, which makes it what is declared here"
    )
    return Problem("foreign-name", "error", reason)


def _unresolved(one: _Declared) -> Iterator[Problem]:
    for kind, name in references(one.form):
        if one.names.id_of(kind, name) is None and not _is_consumed(name, one.names):
            known = one.names.known(kind)
            reason = f"refers to the {kind} {name!r}, which does not exist{_meant(name, known)}; {_there_are(known)}"
            if kind == "block":
                yield Problem(NO_BLOCK, "error", f"{reason}. Make it on the server, then: penstock apply")
            else:
                yield Problem("unresolved", "error", reason)
    for _, action in one.actions:
        for id_field, (kind, _) in ID_FIELDS.items():
            if id_field in action and one.names.name_of(kind, str(action[id_field])) is None:
                reason = (
                    f"refers to a {kind} by the id {action[id_field]}, which the server does not have: say its name"
                )
                yield Problem("unresolved", "error", reason)
    for leaf in one.leaves:
        yield from _unknown_events(leaf)
        yield from _unknown_datasets(leaf, one.names)


def _is_consumed(name: str, names: Names) -> bool:
    """Whether it is the deployment that a flow of the project's own replaced, of which `_consumed` speaks."""
    flow, _, loaded = name.partition("/")
    return flow == "ingest" and loaded in names.consumers


def _unknown_events(leaf: Form) -> Iterator[Problem]:
    for pattern in [*leaf.get("expect", []), *leaf.get("after", [])]:
        if pattern.startswith("penstock.") and not templates.emitted(pattern):
            known = list(events.PAYLOADS)
            reason = f"waits for the event {pattern!r}, which penstock never emits{_meant(pattern, known)}"
            yield Problem("unresolved", "warning", f"{reason}; it emits: {', '.join(known)}")


def _unknown_datasets(leaf: Form, names: Names) -> Iterator[Problem]:
    related = leaf.get("match_related") or []
    for specification in [leaf.get("match", {}), *(related if isinstance(related, list) else [related])]:
        wanted = specification.get("prefect.resource.id", [])
        for one in [wanted] if isinstance(wanted, str) else wanted:
            found = _DATASET.fullmatch(one)
            if found is None:
                continue
            known = names.datasets_of(found["project"])
            if found["dataset"] not in known:
                reason = f"waits for the dataset {found['dataset']!r}, which {found['project']} does not have"
                yield Problem(
                    "unresolved", "warning", f"{reason}{_meant(found['dataset'], known)}; {_there_are(known)}"
                )


def _consumed(one: _Declared) -> Iterator[Problem]:
    for kind, name in references(one.form):
        if kind == "deployment" and _is_consumed(name, one.names):
            loaded = name.partition("/")[2]
            consumer = one.names.consumers[loaded]
            dataset, own = loaded.rpartition(".")[2], consumer.partition("/")[0]
            reason = (
                f"runs {name!r}, but the flow {own!r} consumes the dataset {dataset}: write on_arrival({dataset!r}, "
                f"flow={own!r}), or name the deployment {consumer!r}"
            )
            yield Problem("consumer", "error", reason)


def _not_here(one: _Declared) -> Iterator[Problem]:
    if any(leaf.get("type") == "metric" for leaf in one.leaves):
        reason = (
            "a metric trigger works on Prefect Cloud only; the server refuses it: count events instead, as when_failing"
        )
        yield Problem("not-on-this-server", "error", reason)
    if any(action.get("type") == "declare-incident" for _, action in one.actions):
        reason = "incidents are declared on Prefect Cloud only; the server refuses the action: notify or call a webhook"
        yield Problem("not-on-this-server", "error", reason)


def _matches_everything(one: _Declared) -> Iterator[Problem]:
    for leaf in one.leaves:
        if leaf.get("type") != "event" or not _is_any(leaf):
            continue
        if leaf.get("posture") == "Proactive":
            says = "every event keeps this trigger quiet, and a server emits some all the time, so that it never fires"
        else:
            says = "every event matches this trigger, those of its own firing too"
        reason = f"{says}: name the events in expect, or the resources in match"
        yield Problem("matches-everything", "warning", reason)


def _is_any(leaf: Form) -> bool:
    names = leaf.get("expect", [])
    if names and not any(set(name) == {"*"} for name in names):
        return False
    related = leaf.get("match_related") or []
    return all(map(_takes_all, [leaf.get("match", {}), *(related if isinstance(related, list) else [related])]))


def _takes_all(specification: Mapping[str, Any]) -> bool:
    wanted = specification.get("prefect.resource.id", "*")
    values = [wanted] if isinstance(wanted, str) else wanted
    return set(specification) <= {"prefect.resource.id"} and any(set(value) == {"*"} for value in values)


def _throttles(one: _Declared) -> Iterator[Problem]:
    if not any(action.get("type") == "run-deployment" for _, action in one.actions):
        return
    for leaf in one.leaves:
        if leaf.get("type") != "event" or leaf.get("posture") != "Reactive":
            continue
        if leaf.get("threshold", 1) <= 1 and float(leaf.get("within") or 0) > 0:
            reason = (
                f"within={leaf['within']:g} s with a threshold of 1 gathers nothing: the first event fires at once, and"
                " the others of that time are dropped. Leave within out: an ingest run takes everything that waits, and"
                " one too many ends at once"
            )
            yield Problem("throttles", "warning", reason)


def _templates(one: _Declared) -> Iterator[Problem]:
    for where, action in one.actions:
        shapes = one.shapes(where)
        for template in templates.templates_of(action):
            yield from templates.problems(template, shapes)
        if _FROM_AN_EVENT.search(str(action.get("job_variables") or "")):
            reason = "job_variables has a template of the event, which Prefect does not render there: use a parameter"
            yield Problem("template", "warning", reason)


def _parameters(one: _Declared) -> Iterator[Problem]:
    for where, action in one.actions:
        accepts = one.schemas.get(action.get("deployment", ""))
        if action.get("type") != "run-deployment" or accepts is None:
            continue
        shapes = one.shapes(where)
        broken = any(
            problem.rule == "template"
            for template in templates.templates_of(action)
            for problem in templates.problems(template, shapes)
        )
        if not broken:
            given = action.get("parameters") or {}
            yield from parameters.check(action["deployment"], given, accepts, shapes)


def _refused(one: _Declared) -> Iterator[Problem]:
    """By the model with which the server reads what is sent to it."""
    try:
        AutomationCreate.model_validate(with_stand_ins(one.form))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        yield Problem("refused", "error", f"the server would refuse it: {where + ': ' if where else ''}{first['msg']}")
    except DeclarationError as error:
        yield Problem("refused", "error", str(error))


def _same_names(
    automations: Sequence[tuple[Form, Automation]], files: Mapping[str, str]
) -> Iterator[tuple[str, Problem]]:
    seen: set[str] = set()
    for form, _ in automations:
        if form["name"] in seen:
            reason = (
                "two automations have this name, by which the one on the server is found again: give one of them"
                " another (the helpers take name=)"
            )
            yield form["name"], Problem("same-name", "error", reason)
        seen.add(form["name"])


def _loops(automations: Sequence[tuple[Form, Automation]], names: Names) -> Iterator[tuple[str, Problem]]:
    # Who allows it says that this automation ends the loop.
    forms = [form for form, automation in automations if "fires-itself" not in automation.allow]
    for steps in loops.loops(forms, names):
        way = "; ".join(
            f"{step.name!r} causes {step.event} ({step.by}), which fires {following.name!r}"
            for step, following in zip(steps, [*steps[1:], steps[0]], strict=True)
        )
        reason = (
            f"fires without end: {way}. Narrow the trigger (match, match_related) to what its own actions do not cause,"
            " or, if something not to be seen here ends it, say allow=['fires-itself']"
        )
        yield steps[0].name, Problem("fires-itself", "error", reason)


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (meant {close[0]!r}?)" if close else ""


def _there_are(known: Sequence[str], *, shown: int = 20) -> str:
    if not known:
        return "there are none"
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return f"there are: {', '.join(known[:shown])}{more}"


_EACH = (
    _unresolved,
    _consumed,
    _not_here,
    _matches_everything,
    _throttles,
    _templates,
    _parameters,
    _unknown_rules,
)
