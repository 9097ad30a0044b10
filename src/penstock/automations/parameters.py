"""Whether the parameters that an automation gives a deployment are ones that its flow takes. Pure.

By Prefect's own validation, which its server makes when the run is created: too late, since an action that fails is not
done again. Where the deployment does not enforce its schema, the run itself fails, or makes a number of a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema.exceptions import ValidationError
from prefect.server.utilities.user_templates import maybe_template
from prefect.utilities.schema_tools.validation import (
    CircularSchemaRefError,
    is_valid_schema,
    validate,
)
from prefect.utilities.schema_tools.validation import ValidationError as Unresolvable

from penstock.automations.templates import Problem, Shape, Template, one_expression, type_of
from penstock.plan import Severity

Path = tuple[str | int, ...]

_SAMPLES: dict[str, Any] = {
    "string": "text",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
_LEFT_OUT = object()


@dataclass(frozen=True, kw_only=True)
class Accepts:
    """What a deployment takes: its parameter `schema`, the values it is `given` by itself, whether it enforces them.

    `given` None: nobody knows, so that nothing can be said to be missing.
    """

    schema: Mapping[str, Any]
    given: Mapping[str, Any] | None = field(default_factory=dict)
    enforced: bool = True

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Accepts:
        """Of a deployment as the server's API answers it."""
        return cls(
            schema=deployment.get("parameter_openapi_schema") or {},
            given=deployment.get("parameters") or {},
            enforced=bool(deployment.get("enforce_parameter_schema")),
        )


@dataclass(kw_only=True)
class _Standing:
    """Parameters with a value in the place of each template: of its type, or of none that is known."""

    shapes: Sequence[Shape] | None
    samples: set[Path] = field(default_factory=set)
    unknown: set[Path] = field(default_factory=set)

    def of(self, value: Any, path: Path = ()) -> Any:
        if isinstance(value, str) and maybe_template(value):
            return self._template(Template(where="", text=value, typed=one_expression(value)), path)
        if isinstance(value, list):
            items = [self.of(item, (*path, index)) for index, item in enumerate(value)]
            return [item for item in items if item is not _LEFT_OUT]
        if isinstance(value, dict) and "__prefect_kind" in value:
            return self._prefects(value, path)
        if isinstance(value, dict):
            members = {name: self.of(item, (*path, name)) for name, item in value.items()}
            return {name: item for name, item in members.items() if item is not _LEFT_OUT}
        return value

    def _prefects(self, value: dict[str, Any], path: Path) -> Any:
        kind, inner = value["__prefect_kind"], value.get("value")
        if kind == "jinja" and isinstance(value.get("template"), str):
            return self._template(Template(where="", text=value["template"]), path)
        if kind == "none":
            return self.of(inner, path)
        if kind == "json" and "value" not in value:
            return _LEFT_OUT
        if kind == "json" and isinstance(inner, str):
            try:
                return json.loads(inner)
            except ValueError:
                pass
        self.unknown.add(path)
        return None

    def _template(self, template: Template, path: Path) -> Any:
        rendered = type_of(template, self.shapes)
        if rendered is None:
            self.unknown.add(path)
            return None
        self.samples.add(path)
        return _SAMPLES[rendered]


def check(
    deployment: str, parameters: Mapping[str, Any], accepts: Accepts, shapes: Sequence[Shape] | None
) -> list[Problem]:
    """What is wrong with the parameters for a deployment whose schema is known; templates in them must be sound."""
    schema = dict(accepts.schema)
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return []
    severity: Severity = "error" if accepts.enforced else "warning"
    known = ", ".join(sorted(properties)) or "none"
    found = [
        Problem(
            "unknown-parameter",
            severity,
            f"{deployment} takes no parameter {name!r}, so that its run would fail; it takes: {known}",
        )
        for name in sorted(set(parameters) - set(properties))
        if not schema.get("additionalProperties")
    ]
    standing = _Standing(shapes=shapes)
    here = standing.of({name: value for name, value in parameters.items() if name in properties})
    try:
        is_valid_schema(schema)
        errors = validate({**(accepts.given or {}), **here}, schema)
    except (CircularSchemaRefError, Unresolvable, ValueError):
        return found
    for error in errors:
        path = tuple(error.absolute_path)
        if not path and error.validator == "required":
            if accepts.given is not None:
                found += [_missing(deployment, name, severity) for name in _required(error)]
        elif path and path[0] in here and _stands(error, path, standing):
            found.append(_wrong(deployment, error, path, severity, is_sample=path in standing.samples))
    return sorted(set(found))


def _required(error: ValidationError) -> list[str]:
    names = error.validator_value
    return [name for name in names if f"{name!r} is" in error.message] if isinstance(names, list) else []


def _missing(deployment: str, name: str, severity: Severity) -> Problem:
    reason = f"{deployment} needs the parameter {name!r}, which neither this automation nor the deployment gives"
    return Problem("missing-parameter", severity, reason)


def _wrong(deployment: str, error: ValidationError, path: Path, severity: Severity, *, is_sample: bool) -> Problem:
    where = _written(path)
    if is_sample:
        reason = (
            f"the template for {where} of {deployment} is rendered as {_type(error.instance)}, which its schema does"
            " not take: only a parameter that is one expression and nothing else keeps the type of its value"
        )
    else:
        reason = f"{where} of {deployment}: {error.message}"
    return Problem("wrong-parameter-type", severity, reason)


def _stands(error: ValidationError, path: Path, standing: _Standing) -> bool:
    """Whether it is wrong whatever the templates give."""
    if path in standing.samples:
        return _of_type(error)
    return not any(one[: len(path)] == path for one in standing.samples | standing.unknown)


def _of_type(error: ValidationError) -> bool:
    if error.validator in ("anyOf", "oneOf") and error.context:
        return all(_of_type(one) for one in error.context)
    return error.validator == "type"


def _written(path: Path) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"the parameter {steps.removeprefix('.')!r}"


def _type(value: Any) -> str:
    return next(name for name, sample in _SAMPLES.items() if type(sample) is type(value))
