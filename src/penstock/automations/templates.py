"""The Jinja templates of an automation's actions, and what may stand in them: a field that its events have. Pure.

What Prefect does with them stands in its `server/events/actions.py` and `server/utilities/user_templates.py`. As a
parameter, a text that is one expression and nothing else keeps its value's type (Prefect adds `| tojson` to it and
reads the JSON); every other template is rendered as text, where what nothing has is rendered as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import ChainableUndefined, TemplateError, meta, nodes
from prefect.server.events.jinja_filters import all_filters
from prefect.server.events.schemas.events import ReceivedEvent, Resource
from prefect.server.utilities.user_templates import (
    TemplateSecurityError,
    UserTemplateEnvironment,
    maybe_template,
    validate_user_template,
)

from penstock import events
from penstock.automations.forms import Form
from penstock.plan import Severity

# What Prefect gives a template: `JinjaTemplateAction._template_context` and `_relevant_native_objects`.
_OBJECTS = frozenset({"deployment", "flow", "flow_run", "task_run", "work_pool", "work_queue", "concurrency_limit"})
CONTEXT = _OBJECTS | {"automation", "event", "labels", "firing", "firings", "events", "variables"}

_STATE_LABELS = frozenset(f"prefect.state-{label}" for label in ("message", "name", "timestamp", "type"))
_RUN_LABELS = _STATE_LABELS | {"prefect.resource.id", "prefect.resource.name", "prefect.run-count"}
_RUN_PAYLOAD = {"intended": "object", "initial_state": "object", "validated_state": "object"}
_FIRED_LABELS = frozenset({"prefect.resource.id", "prefect.resource.name", "prefect.posture"})
_FIRED_PAYLOAD = {"triggering_labels": "object", "triggering_event": "object"}
_LABELS = {
    "dataset": frozenset(events.dataset_resource("", "")),
    "object": frozenset(events.object_resource("", "", "")),
    "source": frozenset(events.source_resource("", "")),
}


class Problem(NamedTuple):
    """What a rule found, without the automation's name."""

    rule: str
    severity: Severity
    reason: str


@dataclass(frozen=True, kw_only=True)
class Template:
    """One template: `where` it stands (`parameters.rows`), and whether the rendered value keeps its type."""

    where: str
    text: str
    typed: bool = False


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What an event has: its payload's fields with their JSON types, and the labels of its resource."""

    event: str
    payload: Mapping[str, str]
    labels: frozenset[str]


class _Environment(UserTemplateEnvironment):
    """Prefect's own, which adds its filters when its first action runs and not before."""

    def __init__(self) -> None:
        super().__init__(
            undefined=ChainableUndefined, extensions=["jinja2_humanize_extension.HumanizeExtension"], cache_size=0
        )
        self.filters.update(all_filters)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    return _Environment()


def templates_of(action: Form) -> list[Template]:
    """Every template that Prefect renders in an action."""
    if action.get("type") == "run-deployment":
        return list(_in_parameters("parameters", action.get("parameters") or {}))
    found = [Template(where=name, text=action[name]) for name in ("subject", "body", "payload") if name in action]
    return [template for template in found if isinstance(template.text, str) and maybe_template(template.text)]


def problems(template: Template, shapes: Sequence[Shape] | None) -> list[Problem]:
    """What is wrong with a template whose event is one of these shapes; None: nobody knows what its event has."""
    try:
        validate_user_template(template.text)
        environment = _environment()
        tree = environment.parse(template.text)
        environment.compile(template.text)
    except (TemplateError, TemplateSecurityError, RecursionError) as error:
        return [Problem("template", "error", f"the template in {template.where} cannot be rendered: {error}")]
    found = list(_refused(template, tree))
    return found or [*_loose(template), *_unknown(template, tree, shapes)]


def type_of(template: Template, shapes: Sequence[Shape] | None) -> str | None:
    """The JSON type that a template is rendered as; None where that cannot be told. For templates without problems."""
    if not template.typed:
        return "string"
    expression = _alone(_environment().parse(template.text))
    chain = _chain(expression) if expression is not None else None
    if not shapes or chain is None or chain[:2] != ("event", "payload") or len(chain) != 3:
        return None
    types = {shape.payload.get(chain[2]) for shape in shapes}
    return types.pop() if len(types) == 1 else None


def shapes_of(trigger: Form, *, of_firing: bool = False) -> list[Shape] | None:
    """What the event of an action can look like; None when one of the expected events is not known.

    `of_firing` for `actions_on_trigger` and `actions_on_resolve`, whose event is the automation's own firing.
    """
    if of_firing:
        return [Shape(event="prefect.automation.triggered", payload=_FIRED_PAYLOAD, labels=_FIRED_LABELS)]
    found: list[Shape] = []
    for leaf in leaves(trigger):
        if leaf.get("type") != "event" or not leaf.get("expect"):
            return None
        kind = _kind_of(leaf)
        # A proactive trigger's event is the last that it covered, of either.
        for expected in [*leaf["expect"], *leaf.get("after", [])]:
            shapes = _shapes_named(expected, kind)
            if not shapes:
                return None
            found += shapes
    return found or None


def leaves(trigger: Form) -> Iterator[Form]:
    """The triggers in a trigger that look at events themselves."""
    if trigger.get("type") in ("compound", "sequence"):
        for child in trigger.get("triggers", []):
            yield from leaves(child)
    else:
        yield trigger


def emitted(pattern: str) -> list[str]:
    """The events of penstock that a trigger's `expect` means."""
    return [name for name in events.PAYLOADS if fnmatchcase(name, pattern)]


def _shapes_named(expected: str, kind: str | None) -> list[Shape]:
    if expected.startswith("penstock."):
        return [
            Shape(event=name, payload=payload, labels=_LABELS[one])
            for name in emitted(expected)
            for one, payload in events.PAYLOADS[name].items()
            if kind in (None, one) or len(events.PAYLOADS[name]) == 1
        ]
    # Prefect's own states are written with a capital; `prefect.flow-run.heartbeat` is none.
    if expected.startswith("prefect.flow-run.") and expected[17:18].isupper() and "*" not in expected:
        return [Shape(event=expected, payload=_RUN_PAYLOAD, labels=_RUN_LABELS)]
    if expected in ("prefect.automation.triggered", "prefect.automation.resolved"):
        return [Shape(event=expected, payload=_FIRED_PAYLOAD, labels=_FIRED_LABELS)]
    return []


def _kind_of(leaf: Form) -> str | None:
    """Of which kind of penstock's resources a trigger's events are, where its `match` says that."""
    wanted = leaf.get("match", {}).get("prefect.resource.id", [])
    kinds = {
        next((kind for kind in _LABELS if f".{kind}." in one), None)
        for one in ([wanted] if isinstance(wanted, str) else wanted)
    }
    return kinds.pop() if len(kinds) == 1 else None


def _in_parameters(where: str, value: Any) -> Iterator[Template]:
    if isinstance(value, str):
        if maybe_template(value):
            yield Template(where=where, text=value, typed=one_expression(value))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _in_parameters(f"{where}[{index}]", item)
    elif isinstance(value, dict) and "__prefect_kind" in value:
        if value["__prefect_kind"] == "jinja" and isinstance(value.get("template"), str):
            yield Template(where=where, text=value["template"])
        elif isinstance(value.get("value"), dict | list):
            yield from _in_parameters(where, value["value"])
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _in_parameters(f"{where}.{name}", item)


def one_expression(text: str) -> bool:
    """Whether Prefect keeps the type of what this parameter is rendered as: by its own, simple, look at the text."""
    stripped = text.strip()
    return stripped.startswith("{{") and stripped.endswith("}}") and stripped.count("{{") == 1


def _refused(template: Template, tree: nodes.Template) -> Iterator[Problem]:
    for node in tree.find_all(nodes.Getattr):
        if node.attr.startswith("__"):
            reason = f"the template in {template.where} names {node.attr!r}, which Prefect's sandbox refuses"
            yield Problem("template", "error", reason)


def _loose(template: Template) -> Iterator[Problem]:
    """`{{ a + b }}` becomes `{{ a + b | tojson }}`, where the filter takes `b` alone."""
    if not template.typed:
        return
    inner = template.text.strip()[2:-2].strip()
    try:
        expression = _alone(_environment().parse("{{ " + inner + " | tojson }}"))
    except TemplateError:
        # `{{- a -}}`: what Prefect makes of it is none.
        expression = None
    if isinstance(expression, nodes.Filter):
        return
    reason = (
        f"Prefect adds '| tojson' to the template in {template.where}, which takes the last term alone, so that the"
        " action fails or gives something else: put parentheses around the expression, and no '-' at its ends"
    )
    # `{{ 1 if x else 2 }}` happens to work for numbers.
    yield Problem("template", "warning" if isinstance(expression, nodes.CondExpr) else "error", reason)


def _unknown(template: Template, tree: nodes.Template, shapes: Sequence[Shape] | None) -> Iterator[Problem]:
    environment = _environment()
    for name in sorted(meta.find_undeclared_variables(tree) - CONTEXT - set(environment.globals)):
        known = ", ".join(sorted(CONTEXT))
        reason = f"the template in {template.where} names {name!r}, which Prefect does not give it; it gives: {known}"
        yield Problem("unknown-field", "warning", reason)
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    found: dict[str, None] = {}
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        chain = _chain(node)
        if chain is not None and chain[0] == "event" and len(chain) in (2, 3):
            says = _says(node, chain, shapes, is_called=id(node) in called)
            if says:
                found[says] = None
    for says in found:
        yield Problem("unknown-field", "warning", f"the template in {template.where} names {says}")


def _says(node: nodes.Node, chain: tuple[str, ...], shapes: Sequence[Shape] | None, *, is_called: bool) -> str | None:
    if len(chain) == 2 and not _has(ReceivedEvent, chain[1]):
        return f"event.{chain[1]}, which no event has; it has: {', '.join(sorted(ReceivedEvent.model_fields))}"
    if len(chain) == 3 and shapes and chain[1] == "payload":
        return _of_payload(chain[2], shapes, dotted=isinstance(node, nodes.Getattr), is_called=is_called)
    if len(chain) == 3 and shapes and chain[1] == "resource":
        return _of_resource(chain[2], shapes, dotted=isinstance(node, nodes.Getattr))
    return None


def _of_payload(name: str, shapes: Sequence[Shape], *, dotted: bool, is_called: bool) -> str | None:
    known = sorted({field for shape in shapes for field in shape.payload})
    if dotted and hasattr(dict, name):
        if name not in known or is_called:
            return None
        return f"event.payload.{name}, which is a method of the payload; the field is event.payload[{name!r}]"
    if name in known:
        return None
    return f"event.payload.{name}, which {_events(shapes)} does not have; its payload has: {', '.join(known)}"


def _of_resource(name: str, shapes: Sequence[Shape], *, dotted: bool) -> str | None:
    labels = sorted({label for shape in shapes for label in shape.labels})
    if name in labels or (dotted and _has(Resource, name)):
        return None
    return f"event.resource.{name}, which the one of {_events(shapes)} does not have; its labels: {', '.join(labels)}"


def _events(shapes: Sequence[Shape]) -> str:
    return " or ".join(dict.fromkeys(shape.event for shape in shapes))


def _has(model: Any, name: str) -> bool:
    return name in model.model_fields or hasattr(model, name)


def _alone(tree: nodes.Template) -> nodes.Expr | None:
    """The one expression that a template consists of."""
    found = [
        node
        for output in tree.body
        if isinstance(output, nodes.Output)
        for node in output.nodes
        if not (isinstance(node, nodes.TemplateData) and not node.data.strip())
    ]
    return found[0] if len(found) == 1 and len(tree.body) == 1 else None


def _chain(node: nodes.Node) -> tuple[str, ...] | None:
    """`event.payload["rows"]` as its names; None for anything else."""
    steps: list[str] = []
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        step = _step(node)
        if not isinstance(step, str):
            return None
        steps.append(step)
        node = node.node
    return (node.name, *reversed(steps)) if isinstance(node, nodes.Name) else None


def _step(node: nodes.Node) -> Any:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value
    return None
