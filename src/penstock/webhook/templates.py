"""Templates over what a delivery says: Jinja's sandbox, cut down to expressions. Pure.

The template is the project's, the data anybody's. So there are no loops, calls, macros or arithmetic, by which data
would decide how much is done; a look-up reads objects and arrays and never a Python attribute, so that `body.items`
is the sender's field and `body.__class__` nothing; and what comes out is cut off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock.errors import DeclarationError

LONGEST = 2_000

_FILTERS = "capitalize d default first float int join last length lower replace string title trim truncate upper"
_TESTS = "boolean defined eq equalto false float ge gt in integer le lower lt mapping ne none number sequence string "
_TESTS += "true undefined upper"
_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
    nodes.Tuple,
    nodes.List,
    nodes.Filter,
    nodes.Test,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Keyword,
)


class Template:
    """A compiled template over `names`; `roots` are those of them that it reads.

    Raises DeclarationError for what does not compile, names something else, or is no expression.
    """

    def __init__(self, template: str, names: Collection[str]) -> None:
        if len(template) > LONGEST:
            raise DeclarationError(f"a template of {len(template)} characters is more than {LONGEST}")
        try:
            parsed = _ENVIRONMENT.parse(template)
            self.roots = _roots(parsed, names, template)
            self._compiled = _ENVIRONMENT.from_string(template)
        except (TemplateError, RecursionError, SyntaxError, ValueError) as error:
            raise DeclarationError(f"the template {template!r} does not compile: {error}") from None

    def render(self, data: Mapping[str, object], most: int) -> str | None:
        """The text without white space at its ends; None where something is undefined or it has over `most` characters.

        A number or a boolean is its JSON text; null, an object and an array are as undefined.
        """
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._compiled.generate(data):
                length += len(piece)
                if length > most + LONGEST:
                    return None
                pieces.append(piece)
        # What a filter or a comparison does not take; deep nesting; numbers too long to be written.
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
            return None
        text = "".join(pieces).strip()
        return text if len(text) <= most else None


class _Environment(ImmutableSandboxedEnvironment):
    """Reads JSON and nothing else."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj
        readable = (isinstance(obj, Mapping) and isinstance(argument, str)) or (
            isinstance(obj, list) and isinstance(argument, int)
        )
        try:
            return obj[argument] if readable else self.undefined(obj=obj, name=argument)
        except LookupError:
            return self.undefined(obj=obj, name=argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)


def _json_text(value: object) -> object:
    if isinstance(value, str | Undefined):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise UndefinedError("no text, number or boolean")


def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, finalize=_json_text, autoescape=False)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS.split()}
    environment.tests = {name: environment.tests[name] for name in _TESTS.split()}
    return environment


def _roots(parsed: nodes.Template, names: Collection[str], template: str) -> set[str]:
    found: set[str] = set()
    for node in (parsed, *parsed.find_all(nodes.Node)):
        if not isinstance(node, _NODES):
            raise DeclarationError(
                f"the template {template!r} uses {type(node).__name__}; it may look up, filter, compare and choose"
            )
        if isinstance(node, nodes.Name):
            found.add(node.name)
        if isinstance(node, nodes.Filter) and node.name not in ("d", "default"):
            _check_constant(node, template)
    if unknown := found - set(names):
        raise DeclarationError(
            f"the template {template!r} names {min(unknown)!r}; there are {', '.join(sorted(names))}"
        )
    return found


def _check_constant(node: nodes.Filter, template: str) -> None:
    given = [*node.args, *(keyword.value for keyword in node.kwargs)]
    if node.dyn_args or node.dyn_kwargs or not all(isinstance(one, nodes.Const) for one in given):
        # As `replace` could otherwise make of two fields what is as large as their product.
        raise DeclarationError(f"the template {template!r} gives the filter {node.name} something that is no constant")


_ENVIRONMENT = _environment()
