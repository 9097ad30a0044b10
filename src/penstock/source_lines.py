"""In which line of a file a dataset says something. Pure."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TypeGuard

_CALL = "Dataset"


def line_of(source: str, where: Sequence[str]) -> int | None:
    """The line in which `Dataset(…)` says `where`: a field, then a key of its dict or an item of its list.

    What stands elsewhere, such as in another module, is where it is used; None where there is no such call at all.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    call = next((node for node in ast.walk(tree) if _is_call(node, _CALL)), None)
    if call is None:
        return None
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    node: ast.expr = call
    for step in where:
        found = _within(node, step, assigned)
        if found is None:
            break
        node = found
    return node.lineno


def line_of_call(source: str, called: str, keyword: str, value: object) -> int | None:
    """The line in which the first `called(…, keyword=value)` says that; None where none does."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    said = (one for node in ast.walk(tree) if _is_call(node, called) for one in node.keywords)
    return next(
        (
            one.value.lineno
            for one in said
            if one.arg == keyword and isinstance(one.value, ast.Constant) and one.value.value == value
        ),
        None,
    )


def _is_call(node: ast.AST, called: str) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    return (isinstance(function, ast.Name) and function.id == called) or (
        isinstance(function, ast.Attribute) and function.attr == called
    )


def _within(node: ast.expr, step: str, assigned: dict[str, ast.expr]) -> ast.expr | None:
    if isinstance(node, ast.Name) and node.id in assigned:
        node = assigned[node.id]
    if isinstance(node, ast.Call):
        return next((one.value for one in node.keywords if one.arg == step), None)
    if isinstance(node, ast.Dict):
        return next((key for key in node.keys if isinstance(key, ast.Constant) and key.value == step), None)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return next((one for one in node.elts if isinstance(one, ast.Constant) and one.value == step), None)
    return None
