"""In which line of a file a dataset says something. Pure."""

from __future__ import annotations

import ast
from collections.abc import Sequence

_CALL = "Dataset"


def line_of(source: str, where: Sequence[str]) -> int | None:
    """The line in which `Dataset(…)` says `where`: a field, then a key of its dict or an item of its list.

    What stands elsewhere, such as in another module, is where it is used; None where there is no such call at all.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    call = next((node for node in ast.walk(tree) if _is_dataset(node)), None)
    if not isinstance(call, ast.Call):
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


def _is_dataset(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (isinstance(called, ast.Name) and called.id == _CALL) or (
        isinstance(called, ast.Attribute) and called.attr == _CALL
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
