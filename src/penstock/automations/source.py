"""An automation's form as the Python that declares it, for `penstock import`. Pure.

What is written turns back, by `form_of`, into the very same form; `declared_form` says which that is.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from penstock.automations.compare import bare
from penstock.automations.define import PROJECT, Automation, Kind, with_project
from penstock.automations.forms import ACTIONS, ID_FIELDS, Form
from penstock.automations.layout import Group, Node, Text, laid_out, listed, mapping, quoted
from penstock.errors import DeclarationError
from penstock.ownership import APPLIED_PREFIX, owner_tag

_EVENTS, _EVENT_ACTIONS, _EVENT_SCHEMAS = (
    "prefect.events",
    "prefect.events.actions",
    "prefect.events.schemas.automations",
)

# Prefect's own class of each action that acts on what the event is about, or on nothing.
_CLASSES = {
    "do-nothing": "DoNothing",
    "run-deployment": "RunDeployment",
    "pause-deployment": "PauseDeployment",
    "resume-deployment": "ResumeDeployment",
    "change-flow-run-state": "ChangeFlowRunState",
    "cancel-flow-run": "CancelFlowRun",
    "delete-flow-run": "DeleteFlowRun",
    "resume-flow-run": "ResumeFlowRun",
    "suspend-flow-run": "SuspendFlowRun",
    "pause-work-pool": "PauseWorkPool",
    "resume-work-pool": "ResumeWorkPool",
    "pause-work-queue": "PauseWorkQueue",
    "resume-work-queue": "ResumeWorkQueue",
    "pause-automation": "PauseAutomation",
    "resume-automation": "ResumeAutomation",
    "declare-incident": "DeclareIncident",
}
_GONE = re.compile(r"[0-9a-f-]{36} \(gone\)\Z")
# Written out by its members, not by its value.
_OPERATORS = {"<": "LT", "<=": "LTE", ">": "GT", ">=": "GTE"}
_UNITS = ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


def source_of(form: Form, *, project: str, adopt: str = "") -> str:
    """A file of `automations/` that declares the automation of this form, which has names.

    Raises DeclarationError for what no declaration can say, naming it.
    """
    writer = _Writer(project=project, automation=form["name"], adopt=adopt)
    body = laid_out("AUTOMATIONS = ", Group("[", "]", [("", writer.automation_of(form))], always=True))
    head = "\n\n".join(block for block in writer.import_blocks() if block)
    return f'"""Imported from the Prefect server."""\n\n{head}\n\n{body}\n'


def declared_form(form: Form, *, project: str) -> Form:
    """The form that the written declaration has: the project owns it, and what is enabled is left open."""
    found = bare(form)
    tags = sorted({*found["tags"], owner_tag(project)})
    return {key: value for key, value in {**found, "tags": tags}.items() if key != "enabled" or not value}


def file_name(form: Form, *, project: str) -> str:
    """A name for the file, of the automation's name without the project's."""
    name = re.sub(rf"\A{re.escape(project)}\b", "", form["name"])
    stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not stem or stem[0].isdigit() or keyword.iskeyword(stem):
        stem = f"automation_{stem}".strip("_")
    return f"{stem[:60].rstrip('_')}.py"


def declared_in(source: str, *, filename: str) -> list[Automation]:
    """What a file's text declares. Raises whatever it raises."""
    namespace: dict[str, Any] = {"__name__": "automations.imported"}
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102 - the text that `source_of` wrote
    found: list[Automation] = namespace["AUTOMATIONS"]
    return found


@dataclass(kw_only=True)
class _Writer:
    project: str
    automation: str
    adopt: str = ""
    imports: dict[str, set[str]] = field(default_factory=dict)

    def automation_of(self, form: Form) -> Group:
        known = {"name", "description", "tags", "trigger", "enabled", *ACTIONS}
        self._only(form, known, "the automation")
        own = owner_tag(self.project)
        tags = [tag for tag in form["tags"] if tag != own and not tag.startswith(APPLIED_PREFIX)]
        parts: list[tuple[str, Node]] = [("name=", self._name(form["name"]))]
        if form.get("description"):
            parts.append(("description=", self._text(form["description"])))
        parts.append(("trigger=", self._trigger(form["trigger"])))
        for name in ACTIONS:
            if form.get(name) or name == "actions":
                parts.append((f"{name}=", listed([self._action(action) for action in form.get(name, [])])))
        if tags:
            parts.append(("tags=", listed([quoted(tag) for tag in tags])))
        if form.get("enabled") is False:
            parts.append(("enabled=", "False"))
        if own not in form["tags"]:
            parts.append(("adopt=", quoted(self.adopt) if self.adopt else "True"))
        return Group(f"{self._from('penstock', 'Automation')}(", ")", parts, always=True)

    def import_blocks(self) -> list[str]:
        blocks = (["datetime"], sorted(module for module in self.imports if module.startswith("prefect")), ["penstock"])
        return [
            "\n".join(_import(module, self.imports[module]) for module in block if module in self.imports)
            for block in blocks
        ]

    def _trigger(self, trigger: Form) -> Node:
        writers: dict[str, Callable[[Form], Node]] = {
            "event": self._event_trigger,
            "metric": self._metric_trigger,
            "compound": self._composite_trigger,
            "sequence": self._composite_trigger,
        }
        found = writers.get(trigger["type"])
        if found is None:
            raise self._cannot(f"has a trigger of the type {trigger['type']!r}, which this penstock does not know")
        return found(trigger)

    def _event_trigger(self, trigger: Form) -> Node:
        sets, matches = ("after", "for_each"), ("match", "match_related")
        self._only(trigger, {"type", "expect", "posture", "threshold", "within", *sets, *matches}, "its trigger")
        parts = self._set("expect", trigger)
        for name in matches:
            parts += self._match(name, trigger)
        for name in sets:
            parts += self._set(name, trigger)
        if trigger.get("posture", "Reactive") != "Reactive":
            parts.append(("posture=", f"{self._from(_EVENTS, 'Posture')}.{trigger['posture']}"))
        if trigger.get("threshold", 1) != 1:
            parts.append(("threshold=", repr(trigger["threshold"])))
        if trigger.get("within"):
            parts.append(("within=", self._duration(trigger["within"])))
        return Group(f"{self._from(_EVENTS, 'EventTrigger')}(", ")", parts)

    def _metric_trigger(self, trigger: Form) -> Node:
        self._only(trigger, {"type", "posture", "match", "match_related", "metric"}, "its trigger")
        metric = trigger["metric"]
        self._only(metric, {"name", "threshold", "operator", "range", "firing_for"}, "its metric")
        query: list[tuple[str, Node]] = [
            ("name=", f"{self._from(_EVENT_SCHEMAS, 'PrefectMetric')}.{metric['name']}"),
            ("operator=", f"{self._from(_EVENTS, 'MetricTriggerOperator')}.{_OPERATORS[metric['operator']]}"),
            ("threshold=", repr(metric["threshold"])),
            ("range=", self._duration(metric["range"])),
            ("firing_for=", self._duration(metric["firing_for"])),
        ]
        parts = [
            *self._match("match", trigger),
            *self._match("match_related", trigger),
            ("metric=", Group(f"{self._from(_EVENTS, 'MetricTriggerQuery')}(", ")", query)),
        ]
        return Group(f"{self._from(_EVENTS, 'MetricTrigger')}(", ")", parts)

    def _composite_trigger(self, trigger: Form) -> Node:
        compound = trigger["type"] == "compound"
        self._only(trigger, {"type", "triggers", "within", *(["require"] if compound else [])}, "its trigger")
        parts: list[tuple[str, Node]] = []
        if compound:
            require = trigger["require"]
            parts.append(("require=", quoted(require) if isinstance(require, str) else repr(require)))
        if trigger.get("within") is not None:
            parts.append(("within=", self._duration(trigger["within"])))
        parts.append(("triggers=", listed([self._trigger(one) for one in trigger["triggers"]])))
        return Group(f"{self._from(_EVENTS, 'CompoundTrigger' if compound else 'SequenceTrigger')}(", ")", parts)

    def _action(self, action: Form) -> Node:
        kind: str = action["type"]
        for known, name_field in ID_FIELDS.values():
            if name_field not in action:
                continue
            name = action[name_field]
            if _GONE.match(name):
                raise self._cannot(
                    f"has an action {kind} for a {known} that no longer exists ({name}); mend it on the server first"
                )
            rest = {key: value for key, value in action.items() if key not in {"type", "source", name_field}}
            return self._by_name(kind, known, name, rest)
        if kind not in _CLASSES:
            raise self._cannot(f"has an action {kind!r}, which this penstock does not know")
        return self._prefects_own(kind, {key: value for key, value in action.items() if key != "type"})

    def _by_name(self, kind: str, known: Kind, name: str, rest: Form) -> Node:
        if kind == "run-deployment":
            return self._run_deployment(name, rest)
        parts: list[tuple[str, Node]] = [("", self._acted_on(known, name))]
        if kind == "send-notification":
            self._only(rest, {"subject", "body"}, kind)
            if rest["subject"] != "penstock":
                parts.append(("subject=", self._text(rest["subject"])))
            parts.append(("body=", self._text(rest["body"])))
            return Group(f"{self._from('penstock', 'notify')}(", ")", parts)
        if kind == "call-webhook":
            self._only(rest, {"payload"}, kind)
            if rest.get("payload"):
                parts.append(("payload=", self._text(rest["payload"])))
            return Group(f"{self._from('penstock', 'call_webhook')}(", ")", parts)
        if kind not in _CLASSES:
            raise self._cannot(f"has an action {kind!r}, which this penstock does not know")
        self._only(rest, set(), kind)
        return Group(f"{self._from('penstock', kind.replace('-', '_'))}(", ")", parts)

    def _run_deployment(self, name: str, rest: Form) -> Node:
        self._only(rest, {"parameters", "job_variables", "schedule_after"}, "run-deployment")
        given = self._run_fields(rest)
        parameters = rest.get("parameters")
        parts: list[tuple[str, Node]] = [("", self._acted_on("deployment", name))]
        if any(rest.get(key) == {} for key in ("parameters", "job_variables")):
            # The helpers take an empty one for none.
            fields = mapping(given.items())
            named: list[tuple[str, Node]] = [
                ("type=", quoted("run-deployment")),
                ("kind=", quoted("deployment")),
                ("name=", self._acted_on("deployment", name)),
                ("fields=", fields),
            ]
            return Group(f"{self._from('penstock', 'ByName')}(", ")", named)
        if set(given) <= {"parameters"} and _are_keywords(parameters or {}):
            parts += [(f"{key}=", self._value(value)) for key, value in (parameters or {}).items()]
            return Group(f"{self._from('penstock', 'run_deployment')}(", ")", parts)
        return Group(f"{self._from('penstock', 'run_deployment_with')}(", ")", [*parts, *_keywords(given)])

    def _run_fields(self, rest: Form) -> dict[str, Node]:
        fields = {key: self._value(rest[key]) for key in ("parameters", "job_variables") if rest.get(key) is not None}
        if rest.get("schedule_after"):
            fields["schedule_after"] = self._duration(rest["schedule_after"])
        return fields

    def _prefects_own(self, kind: str, rest: Form) -> Node:
        parts: list[tuple[str, Node]] = []
        if rest.get("source", "selected") != "selected":
            parts.append(("source=", quoted(rest["source"])))
        known = {"source"}
        if kind == "run-deployment":
            known |= {"parameters", "job_variables", "schedule_after"}
            parts += _keywords(self._run_fields(rest))
        elif kind == "change-flow-run-state":
            known = {"state", "name", "message", "force"}
            parts.append(("state=", f"{self._from('prefect.client.schemas.objects', 'StateType')}.{rest['state']}"))
            parts += [(f"{key}=", self._text(rest[key])) for key in ("name", "message") if rest.get(key) is not None]
            if rest.get("force"):
                parts.append(("force=", "True"))
        self._only(rest, known, kind)
        return Group(f"{self._from(_EVENT_ACTIONS, _CLASSES[kind])}(", ")", parts)

    def _set(self, name: str, trigger: Form) -> list[tuple[str, Node]]:
        members = sorted(trigger.get(name) or [])
        if not members:
            return []
        return [(f"{name}=", Group("{", "}", [("", quoted(self._exact(member))) for member in members]))]

    def _match(self, name: str, trigger: Form) -> list[tuple[str, Node]]:
        found = trigger.get(name)
        if isinstance(found, list):
            return [(f"{name}=", listed([self._labels(one) for one in found]))]
        return [(f"{name}=", self._labels(found))] if found else []

    def _labels(self, labels: Mapping[str, str | Sequence[str]]) -> Group:
        return mapping(
            (
                self._exact(label),
                quoted(self._label_value(label, value))
                if isinstance(value, str)
                else listed([quoted(self._label_value(label, one)) for one in value]),
            )
            for label, value in labels.items()
        )

    def _duration(self, seconds: float) -> Node:
        found = timedelta(seconds=seconds)
        self._from("datetime", "timedelta")
        unit = next(unit for unit in _UNITS if found % timedelta(**{unit: 1}) == timedelta(0))
        return f"timedelta({unit}={found // timedelta(**{unit: 1})})"

    def _value(self, value: Any) -> Node:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return listed([self._value(item) for item in value])
        if isinstance(value, dict):
            return mapping((self._exact(key), self._value(item)) for key, item in value.items())
        return repr(value)

    def _text(self, text: str) -> Text:
        return Text(self._exact(text))

    # In a name and in a resource's id the project's name is the project; in a text it may be a word like others.

    def _name(self, name: str) -> Node:
        return quoted(self._with_project(name, rf"(?<![\w-]){re.escape(self.project)}(?![\w-])"))

    def _acted_on(self, kind: Kind, name: str) -> Node:
        if kind == "block":
            return quoted(self._exact(name))
        if kind != "deployment":
            return self._name(name)
        return quoted(self._with_project(name, rf"(?<=/){re.escape(self.project)}(?![\w-])"))

    def _label_value(self, label: str, value: str) -> str:
        if label == "penstock.project" and value == self.project:
            return PROJECT
        return self._with_project(value, rf"(?<=\Apenstock\.){re.escape(self.project)}(?=\.|\Z)")

    def _with_project(self, text: str, where: str) -> str:
        written = re.sub(where, PROJECT, text, count=1)
        return written if with_project(written, self.project) == text else self._exact(text)

    def _exact(self, text: str) -> str:
        if with_project(text, self.project) != text:
            raise self._cannot(
                f"has the text {text!r}; in a declaration {PROJECT} stands for the project's name, so that this cannot "
                "be said: change it on the server first"
            )
        return text

    def _only(self, found: Form, known: set[str], what: str) -> None:
        unknown = sorted(set(found) - known)
        if unknown:
            raise self._cannot(f"has {what} with {', '.join(unknown)}, which this penstock does not know")

    def _from(self, module: str, name: str) -> str:
        self.imports.setdefault(module, set()).add(name)
        return name

    def _cannot(self, why: str) -> DeclarationError:
        return DeclarationError(f"automation {self.automation!r} {why}")


def _are_keywords(parameters: Mapping[str, Any]) -> bool:
    # Another form of the same letter would come back as that letter.
    return all(
        key.isascii() and key.isidentifier() and not keyword.iskeyword(key) and key != "deployment"
        for key in parameters
    )


def _keywords(fields: Mapping[str, Node]) -> list[tuple[str, Node]]:
    return [(f"{name}=", value) for name, value in fields.items()]


def _import(module: str, names: set[str]) -> str:
    # Classes first, as import sorters have it.
    ordered = sorted(names, key=lambda name: (name[0].islower(), name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= 120:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"
