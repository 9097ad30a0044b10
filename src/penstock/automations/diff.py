"""What has to change on the server so that it is as declared. Pure.

Compared are normalised forms: the server adds ids and orders sets as it likes, and neither is a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.errors import DeclarationError

# What the server adds on its own, or what is its users' to change (`enabled`: a paused one stays paused).
_NOT_DECLARED = frozenset({"id", "created", "updated", "owner_resource", "enabled"})
_SETS = frozenset({"expect", "after", "for_each", "tags"})
# Theirs who wrote the flow: an `id` or a `tags` in there means what it says.
_VERBATIM = frozenset({"parameters", "job_variables"})

Kind = Literal["create", "update", "unchanged"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of the plan. `existing` is the id of what is there, `old` and `new` are normalised forms."""

    kind: Kind
    what: Literal["automation", "deployment", "work pool"]
    name: str
    old: dict[str, Any] | None = None
    new: dict[str, Any] | None = None
    existing: Any = None

    @property
    def fields(self) -> list[str]:
        """The top-level fields that differ."""
        if self.old is None or self.new is None:
            return []
        return sorted(name for name in {*self.old, *self.new} if self.old.get(name) != self.new.get(name))


def normalised(form: Any) -> Any:
    """A form in which equal automations are equal."""
    if isinstance(form, dict):
        return {
            key: _member(key, value)
            for key, value in sorted(form.items())
            if key not in _NOT_DECLARED and value is not None
        }
    if isinstance(form, list):
        return [normalised(item) for item in form]
    return form


def _member(key: str, value: Any) -> Any:
    if key in _VERBATIM:
        return value
    if key in _SETS and isinstance(value, list):
        return sorted(normalised(value), key=str)
    return normalised(value)


def compare(
    what: Literal["automation", "deployment"],
    declared: Sequence[dict[str, Any]],
    existing: Sequence[tuple[Any, dict[str, Any]]],
) -> list[Change]:
    """Declared forms against (id, form) of what is there and ours, matched by name, in the order of the names.

    Raises DeclarationError when two are declared by one name.
    """
    for name, count in Counter(form["name"] for form in declared).items():
        if count > 1:
            raise DeclarationError(f"two {what}s are named {name!r}: give one of them another name")
    there = {form["name"]: (found_id, normalised(form)) for found_id, form in existing}
    changes = []
    for form in sorted(declared, key=lambda form: str(form["name"])):
        new = normalised(form)
        found = there.get(form["name"])
        if found is None:
            changes.append(Change(kind="create", what=what, name=form["name"], new=new))
            continue
        kind: Kind = "unchanged" if found[1] == new else "update"
        changes.append(Change(kind=kind, what=what, name=form["name"], old=found[1], new=new, existing=found[0]))
    return changes
