"""How a plan looks: on a terminal, and for a program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from penstock.plan import Change, Difference, Plan

_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "drift": ("!", "magenta"), "delete": ("-", "red")}
_SECRET = re.compile(r"token|secret|passw|api_?key|credential|auth", re.IGNORECASE)
# A description or a template may be long; the whole of it is in --json.
_LONGEST = 120


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan in rich's markup, a line at a time."""
    for change in plan.to_do:
        sign, style = _SIGNS[change.kind]
        what = f"{change.what:<10} [bold]{escape(change.name)}[/bold]{_note(change)}"
        yield f"[{style}]{sign} {change.kind:<7}[/{style}] {what}"
        for difference in change.differences if change.kind != "create" else ():
            yield f"            {_difference(difference)}"
    if unchanged := plan.count("unchanged"):
        yield f"= {unchanged} unchanged"
    for finding in plan.findings:
        style = "red" if finding.severity == "error" else "yellow"
        yield f"[{style}]{finding.severity}[/{style}] {finding.rule}: {escape(finding.reason)}"
    yield counted(plan)
    if plan.kept:
        declared = {change.name for change in plan.changes}
        names = ", ".join(sorted(f"{one.name}{' a second time' * (one.name in declared)}" for one in plan.kept))
        yield f"{len(plan.kept)} owned, but not declared ({escape(names)}): kept; to delete them: --prune"


def counted(plan: Plan) -> str:
    """The plan in one sentence."""
    return (
        f"Plan: {plan.count('create')} to add, {plan.count('update', 'drift')} to change, "
        f"{plan.count('delete')} to delete"
    )


def plan_facts(plan: Plan) -> dict[str, Any]:
    """The plan for a program."""
    return {
        "project": plan.project,
        "digest": plan.digest,
        "add": plan.count("create"),
        "change": plan.count("update", "drift"),
        "delete": plan.count("delete"),
        "unchanged": plan.count("unchanged"),
        "changes": [_facts(change) for change in plan.to_do],
        "kept": [{"what": change.what, "name": change.name, "id": change.existing} for change in plan.kept],
        "findings": [vars(finding) for finding in plan.findings],
    }


def masked(value: Any, name: str = "") -> Any:
    """A value without what may be a secret: whatever is in an `env`, or goes by the name of one."""
    if isinstance(value, dict):
        return {key: masked(item, name if name == "env" else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    return "***" if isinstance(value, str) and (name == "env" or _SECRET.search(name)) else value


def _facts(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "what": change.what,
        "name": change.name,
        "id": change.existing,
        "differences": [
            {**vars(one), "old": _shown(one, one.old), "new": _shown(one, one.new)} for one in change.differences
        ],
        "old": masked(change.old),
        "new": masked(change.new),
    }


def _note(change: Change) -> str:
    return "  (changed on the server since it was applied)" if change.kind == "drift" else ""


def _difference(difference: Difference) -> str:
    old, new = (_value(_shown(difference, value)) for value in (difference.old, difference.new))
    return f"{escape(difference.path)}: {escape(old)} → {escape(new)}"


def _shown(difference: Difference, value: Any) -> Any:
    parts = difference.path.split(".")
    return masked(value, "env" if "env" in parts else parts[-1])


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
