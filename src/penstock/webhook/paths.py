"""JMESPath over what a delivery says. The path is the project's, the data anybody's. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from penstock.errors import DeclarationError

LONGEST = 2_000

# Of these only the first child sees what the whole path sees; the others see what it found.
_STEPS = ("subexpression", "index_expression", "pipe", "projection", "value_projection", "filter_projection", "flatten")


class Path:
    """A compiled path over `names`; `roots` are those of them that it reads, all where that is not sure.

    Raises DeclarationError for what does not compile, calls a function that is none, or reads another name.
    """

    def __init__(self, path: str, names: Collection[str]) -> None:
        if len(path) > LONGEST:
            raise DeclarationError(f"a path of {len(path)} characters is more than {LONGEST}")
        try:
            self._compiled = jmespath.compile(path)
            self.roots = _roots(self._compiled.parsed, names, path)
        except (JMESPathError, RecursionError) as error:
            raise DeclarationError(f"the path {path!r} is no JMESPath: {_first_line(error)}") from None
        if unknown := self.roots - set(names):
            raise DeclarationError(
                f"the path {path!r} begins with {min(unknown)!r}; it can begin with {', '.join(sorted(names))}"
            )

    def find(self, data: Mapping[str, object]) -> object:
        """What it finds; None where that is nothing, or a function does not take what is there."""
        try:
            return self._compiled.search(data)
        # Deep nesting; numbers too long to be written, or that are none; what cannot be compared or be a key.
        except (ValueError, RecursionError, ArithmeticError, TypeError, LookupError, AttributeError):
            return None


def _roots(node: Mapping[str, Any], names: Collection[str], path: str, *, top: bool = True) -> set[str]:
    kind, children = node["type"], [child for child in node["children"] if isinstance(child, dict)]
    if kind == "function_expression":
        _check_call(node["value"], len(children), path)
    if top and kind == "field":
        return {node["value"]}
    if top and kind in ("current", "identity"):
        return set(names)
    found: set[str] = set()
    for index, child in enumerate(children):
        sees_all = top and kind != "expref" and (index == 0 or kind not in _STEPS)
        found |= _roots(child, names, path, top=sees_all)
    return found


def _check_call(name: str, given: int, path: str) -> None:
    if name not in Functions.FUNCTION_TABLE:
        raise DeclarationError(f"the path {path!r} calls {name}(), which JMESPath does not have")
    takes = Functions.FUNCTION_TABLE[name]["signature"]
    variadic = bool(takes and takes[-1].get("variadic"))
    if given < len(takes) or (given > len(takes) and not variadic):
        raise DeclarationError(f"the path {path!r} gives {name}() {given} arguments; it takes {len(takes)}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
