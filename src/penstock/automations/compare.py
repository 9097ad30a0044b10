"""What has to change on the server so that its automations are as declared. Pure.

Ownership is a tag with the project's name. A second tag holds a digest of what was applied last, so that a hand-made
change on the server is told from a change of the code without keeping state anywhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.automations.define import Automation
from penstock.automations.forms import Form, references
from penstock.automations.server import ServerAutomation
from penstock.errors import DeclarationError
from penstock.ownership import APPLIED_PREFIX, OWNER_PREFIX, owner, owner_tag
from penstock.plan import Change


class SameName(DeclarationError):
    """Two declared automations have one name."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The changes in the order in which they are to be made; `kept` is owned, not declared, and stays."""

    changes: Sequence[Change]
    kept: Sequence[Change]
    owned: int


def compare(
    declared: Sequence[tuple[Form, Automation]], there: Sequence[ServerAutomation], *, project: str, prune: bool
) -> Compared:
    """Declared automations against what the server has, matched by name.

    Raises DeclarationError for two of one name, for an adoption that cannot be, and for automations that refer to one
    another in a circle.
    """
    _refuse_same_names([form["name"] for form, _ in declared])
    tag = owner_tag(project)
    owned: dict[str, list[ServerAutomation]] = {}
    for found in sorted(there, key=lambda one: (one.created, one.id)):
        if tag in found.tags:
            owned.setdefault(found.name, []).append(found)
    changes = []
    for form, automation in declared:
        mine = owned.get(form["name"], [])
        existing = mine.pop(0) if mine else _adopted(form["name"], automation, there)
        changes.append(_change(form, existing, adopted=existing is not None and tag not in existing.tags))
    left = [one for found in owned.values() for one in found]
    deletes = [_delete(one) for one in sorted(left, key=lambda one: (one.name, one.id))]
    return Compared(
        changes=[*in_order(changes), *(deletes if prune else ())],
        kept=() if prune else deletes,
        owned=sum(tag in found.tags for found in there),
    )


def foreign_names(there: Sequence[ServerAutomation], tag: str) -> set[str]:
    """The names that only others than the project have."""
    return {one.name for one in there} - {one.name for one in there if tag in one.tags}


def bare(form: Form) -> Form:
    """A form without what penstock itself adds to its tags."""
    tags = [tag for tag in form["tags"] if not tag.startswith(APPLIED_PREFIX)]
    return {**form, "tags": tags}


def comparable(form: Form, wanted: Form) -> Form:
    """A server's form as it can be equal to `wanted`: enabling is its operator's, unless the declaration says so."""
    return {key: value for key, value in bare(form).items() if key != "enabled" or "enabled" in wanted}


def marked(form: Form) -> Form:
    """A form with the tag that tells what was applied."""
    kept = bare(form)
    return {**kept, "tags": sorted([*kept["tags"], APPLIED_PREFIX + digest(kept)])}


def digest(form: Form) -> str:
    """What tells two forms apart; whether one is enabled is its operator's, unless the form says so."""
    return hashlib.sha256(json.dumps(bare(form), sort_keys=True).encode()).hexdigest()[:12]


def has_drifted(found: ServerAutomation) -> bool:
    """Whether it is not what penstock applied last."""
    applied = {tag.removeprefix(APPLIED_PREFIX) for tag in found.tags if tag.startswith(APPLIED_PREFIX)}
    open_form = {key: value for key, value in found.form.items() if key != "enabled"}
    return not applied & {digest(found.form), digest(open_form)}


def in_order(changes: Sequence[Change]) -> list[Change]:
    """By name, but an automation that others refer to before those.

    Raises DeclarationError for a circle of new ones: Prefect wants the id of the one to make the other.
    """
    waiting = sorted(changes, key=lambda change: change.name)
    ordered: list[Change] = []
    while waiting:
        new = {change.name for change in waiting if change.kind == "create"}
        ready = [change for change in waiting if not new & (_referred(change) - {change.name})]
        if not ready:
            raise DeclarationError(
                f"automations refer to one another in a circle: {', '.join(sorted(new))}; apply one of them first "
                "without that action"
            )
        ordered += ready
        waiting = [change for change in waiting if change not in ready]
    return ordered


def _referred(change: Change) -> set[str]:
    return {name for kind, name in references(change.new or {}) if kind == "automation"}


def _refuse_same_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise SameName(f"two automations are named {name!r}: give one of them another name")


def _adopted(name: str, automation: Automation, there: Sequence[ServerAutomation]) -> ServerAutomation | None:
    if not automation.adopt:
        return None
    found = [one for one in there if one.name == name and automation.adopt in (True, one.id)]
    others = sorted({project for one in found if (project := owner(one.tags))})
    if others:
        raise DeclarationError(f"automation {name!r} cannot be adopted: it belongs to the project {', '.join(others)}")
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise DeclarationError(
            f"automation {name!r} cannot be adopted: the server has several of that name; adopt='…' with an id says "
            f"which: {ids}"
        )
    return found[0] if found else None


def _change(form: Form, found: ServerAutomation | None, *, adopted: bool) -> Change:
    if found is None:
        return Change(kind="create", what="automation", name=form["name"], new=form)
    new = form
    if adopted:
        tags = [tag for tag in form["tags"] if not tag.startswith(OWNER_PREFIX)]
        new = {**form, "tags": tags}
    old = comparable(found.form, new)
    if old == new:
        return Change(kind="unchanged", what="automation", name=form["name"], old=old, new=new, existing=found.id)
    by_hand = not adopted and has_drifted(found)
    return Change(
        kind="drift" if by_hand else "update",
        what="automation",
        name=form["name"],
        old=old,
        new=form,
        existing=found.id,
    )


def _delete(found: ServerAutomation) -> Change:
    return Change(kind="delete", what="automation", name=found.name, old=bare(found.form), existing=found.id)
