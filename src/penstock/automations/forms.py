"""An automation as plain data in which equal ones are equal: names for ids, sets sorted, defaults written out. Pure.

A declared automation, one read from the server and one to be sent all pass through here. In a form an action has
`deployment` (or `work_pool`, `work_queue`, `block`, `automation`) with a name where Prefect has an id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, get_args
from uuid import UUID, uuid5

from prefect.events.actions import Action, ActionTypes
from prefect.events.schemas.automations import AutomationCore
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from penstock.automations.define import Automation, ByName, Kind, with_project
from penstock.errors import DeclarationError
from penstock.ownership import owner_tag

Form = dict[str, Any]

# Where Prefect has the id of what an action acts on, and where a form has its name.
ID_FIELDS: dict[str, tuple[Kind, str]] = {
    "deployment_id": ("deployment", "deployment"),
    "work_pool_id": ("work pool", "work_pool"),
    "work_queue_id": ("work queue", "work_queue"),
    "block_document_id": ("block", "block"),
    "automation_id": ("automation", "automation"),
}
_FIELD_OF: dict[Kind, str] = {kind: id_field for id_field, (kind, _) in ID_FIELDS.items()}
ACTIONS = ("actions", "actions_on_trigger", "actions_on_resolve")

# What the server adds on its own.
_NOT_DECLARED = frozenset({"id", "created", "updated", "owner_resource"})
_SETS = frozenset({"expect", "after", "for_each", "tags"})
# Theirs who wrote the flow or the event: an `id` or a `tags` in there means what it says.
_VERBATIM = frozenset({"parameters", "job_variables", "match", "match_related"})

_NAMESPACE = UUID("3d3f4dd4-2b0c-5a51-9d4e-0b7a4ad6f1b4")
_ACTION_TYPES: dict[str, type[Action]] = {model.model_fields["type"].default: model for model in get_args(ActionTypes)}


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the server has: by kind, ids by name, and names by id (two may have one name).

    `consumers` are the deployments of a project's own flows that take what is new in a dataset, by `project.dataset`.
    """

    ids: Mapping[Kind, Mapping[str, str]] = field(default_factory=dict)
    names: Mapping[Kind, Mapping[str, str]] = field(default_factory=dict)
    consumers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(found: Mapping[Kind, Sequence[tuple[str, str]]]) -> Names:
        """Of (name, id) pairs; where several have a name, it means the first."""
        return Names(
            ids={kind: dict(reversed(pairs)) for kind, pairs in found.items()},
            names={kind: {found_id: name for name, found_id in pairs} for kind, pairs in found.items()},
        )

    def id_of(self, kind: Kind, name: str) -> str | None:
        """The id of that name."""
        return self.ids.get(kind, {}).get(name)

    def name_of(self, kind: Kind, found_id: str) -> str | None:
        """The name of that id."""
        return self.names.get(kind, {}).get(found_id)

    def having(self, kind: Kind, name: str, found_id: str) -> Names:
        """These and one more."""
        ids = {**self.ids, kind: {**self.ids.get(kind, {}), name: found_id}}
        names = {**self.names, kind: {**self.names.get(kind, {}), found_id: name}}
        return replace(self, ids=ids, names=names)

    def without(self, found_ids: Collection[str]) -> Names:
        """These but for what has one of these ids."""
        left: dict[Kind, list[tuple[str, str]]] = {
            kind: [(name, found_id) for found_id, name in pairs.items() if found_id not in found_ids]
            for kind, pairs in self.names.items()
        }
        return Names.of(left)

    def knowing(self, names: Mapping[Kind, Sequence[str]]) -> Names:
        """These and what is going to be: names without an id yet."""
        ids = {kind: {**dict.fromkeys(found, ""), **self.ids.get(kind, {})} for kind, found in names.items()}
        return replace(self, ids={**self.ids, **ids})

    def consumed_by(self, flows: Mapping[str, str], *, project: str) -> Names:
        """These, with the flows that consume datasets of the project, by the dataset."""
        own = {f"{project}.{dataset}": f"{flow}/{project}.{dataset}" for dataset, flow in flows.items()}
        return replace(self, consumers={**self.consumers, **own})

    def loads(self, deployment: str) -> str | None:
        """The `project.dataset` whose data a deployment loads; None: it is another's."""
        flow, _, name = deployment.partition("/")
        if name in self.consumers:
            return name if self.consumers[name] == deployment else None
        return name if flow == "ingest" and "." in name else None

    def datasets_of(self, project: str) -> list[str]:
        """The project's datasets, by the deployments that load them."""
        found = {self.loads(deployment) for deployment in self.known("deployment")} | set(self.consumers)
        prefix = f"{project}."
        return sorted(name.removeprefix(prefix) for name in found if name and name.startswith(prefix))

    def known(self, kind: Kind) -> list[str]:
        """Every name of a kind."""
        return sorted(self.ids.get(kind, {}))


def stand_in(kind: Kind, name: str) -> str:
    """An id for what is named, where there is no server to ask."""
    return str(uuid5(_NAMESPACE, f"{kind} {name}"))


def form_of(automation: Automation, *, project: str) -> Form:
    """A declared automation's form. Raises DeclarationError for what Prefect would refuse, naming the automation.

    Without `enabled` where the declaration leaves that open.
    """
    if not isinstance(automation, Automation):
        what = getattr(automation, "__name__", type(automation).__name__)
        raise DeclarationError(f"AUTOMATIONS holds {what}, which is no penstock.Automation; is it a function to call?")
    lists = {name: [_action(automation, action, project) for action in getattr(automation, name)] for name in ACTIONS}
    try:
        core = AutomationCore.model_validate(
            {
                "name": with_project(automation.name, project),
                "description": with_project(automation.description, project),
                "tags": sorted({owner_tag(project), *automation.tags}),
                "trigger": _substitute(automation.trigger.model_dump(mode="json", exclude={"id"}), project),
                "actions": [],
            }
        )
    except ValidationError as error:
        raise DeclarationError(f"automation {automation.name!r}: {_first(error)}") from error
    except PydanticSerializationError as error:
        raise DeclarationError(f"automation {automation.name!r}: {error}") from error
    form: Form = normalised({**core.model_dump(mode="json"), **lists})
    if automation.enabled is None:
        del form["enabled"]
    else:
        form["enabled"] = automation.enabled
    return form


def normalised(form: Any) -> Any:
    """The same in a form in which equal automations are equal."""
    if isinstance(form, BaseModel):
        form = form.model_dump(mode="json")
    if isinstance(form, dict):
        return {
            key: _member(key, value)
            for key, value in sorted(form.items())
            # The server wants a composite trigger's `within` said, also where it is none.
            if key not in _NOT_DECLARED and (value is not None or key == "within")
        }
    if isinstance(form, list):
        return [normalised(item) for item in form]
    return form


def with_names(form: Form, names: Names) -> Form:
    """A normalised form with the names of what its actions act on; an id that nothing has stays, as `… (gone)`."""
    return _each_action(form, lambda action: _named(action, names))


def with_ids(form: Form, names: Names) -> Form:
    """A form as Prefect takes it. Raises DeclarationError for a name that the server does not know."""
    return _each_action(form, lambda action: _identified(action, form["name"], names))


def with_stand_ins(form: Form) -> Form:
    """A form as Prefect's models take it, without a server: an id is made of each name."""
    # A copy, because Prefect's server models change the dict that they validate (an event trigger's `within`).
    return _each_action(deepcopy(form), lambda action: _identified(action, form["name"], None))


def as_deployed(form: Form, deployments: Collection[str]) -> Form:
    """A form that calls a deployment as it is called there, where the form has the name of the flow's function.

    Prefect calls the flow of a function `count_words` `count-words`, unless `@flow(name=…)` says otherwise.
    """

    def called(action: Form) -> Form:
        written = action.get("deployment", "")
        flow, slash, name = written.partition("/")
        there = flow.replace("_", "-") + slash + name
        return {**action, "deployment": there} if written not in deployments and there in deployments else action

    return _each_action(form, called)


def references(form: Form) -> list[tuple[Kind, str]]:
    """What the form's actions act on, by kind and name, in their order."""
    return [
        (kind, action[name_field])
        for action in _all_actions(form)
        for kind, name_field in ID_FIELDS.values()
        if name_field in action
    ]


def _all_actions(form: Form) -> Sequence[Form]:
    return [action for name in ACTIONS for action in form.get(name, [])]


def _action(automation: Automation, action: ActionTypes | ByName, project: str) -> Form:
    if not isinstance(action, ByName):
        return _substituted_action(action.model_dump(mode="json"), project)
    id_field = _FIELD_OF[action.kind]
    name = with_project(action.name, project)
    source = {} if action.kind == "block" else {"source": "selected"}
    try:
        model = _ACTION_TYPES[action.type].model_validate(
            {**source, **action.fields, id_field: stand_in(action.kind, name)}
        )
        found = _substituted_action(model.model_dump(mode="json"), project)
    except ValidationError as error:
        raise DeclarationError(f"automation {automation.name!r}: {action.type}: {_first(error)}") from error
    except PydanticSerializationError as error:
        raise DeclarationError(f"automation {automation.name!r}: {action.type}: {error}") from error
    del found[id_field]
    return {**found, ID_FIELDS[id_field][1]: name}


def _substituted_action(action: Form, project: str) -> Form:
    return {key: _substitute(value, project) for key, value in action.items()}


def _substitute(value: Any, project: str) -> Any:
    if isinstance(value, str):
        return with_project(value, project)
    if isinstance(value, list):
        return [_substitute(item, project) for item in value]
    if isinstance(value, dict):
        return {_substitute(key, project): _substitute(item, project) for key, item in value.items()}
    return value


def _member(key: str, value: Any) -> Any:
    if key in _VERBATIM:
        return value
    if key in _SETS and isinstance(value, list):
        return sorted(normalised(value), key=str)
    return normalised(value)


def _each_action(form: Form, change: Any) -> Form:
    lists = {name: [change(action) for action in form[name]] for name in ACTIONS if name in form}
    return {**form, **lists}


def _named(action: Form, names: Names) -> Form:
    found = dict(action)
    for id_field, (kind, name_field) in ID_FIELDS.items():
        if id_field in found:
            there = found.pop(id_field)
            found[name_field] = names.name_of(kind, str(there)) or f"{there} (gone)"
    return dict(sorted(found.items()))


def _identified(action: Form, automation: str, names: Names | None) -> Form:
    found = dict(action)
    for id_field, (kind, name_field) in ID_FIELDS.items():
        if name_field not in found:
            continue
        name = found.pop(name_field)
        there = stand_in(kind, name) if names is None else names.id_of(kind, name)
        if there is None:
            known = ", ".join(names.known(kind)) or "none" if names else ""
            raise DeclarationError(
                f"automation {automation!r} refers to the {kind} {name!r}, which does not exist; there are: {known}"
            )
        found[id_field] = there
    return found


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
