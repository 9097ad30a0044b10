"""What would change on a Prefect server, as a list: deployments and automations plan with the same words. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["create", "update", "drift", "delete", "unchanged"]
What = Literal["work pool", "deployment", "automation"]
Severity = Literal["error", "warning"]

# The share of what a project owns that may go at once without being asked for by name.
BRAKE = 0.30

# The rule that an automation breaks which names a block that is not there.
NO_BLOCK = "no-block"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One value that differs: `path` is dotted (`trigger.within`); None where there is no value."""

    path: str
    old: Any
    new: Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of a plan. `existing` is the id of what is there, `old` and `new` are normalised forms.

    `drift` is an update of what somebody changed on the server since it was applied.
    """

    kind: Kind
    what: What
    name: str
    old: dict[str, Any] | None = None
    new: dict[str, Any] | None = None
    existing: str | None = None

    @property
    def differences(self) -> list[Difference]:
        """The values that differ, in the order of their paths."""
        if self.old is None or self.new is None:
            return []
        return list(_differences("", self.old, self.new))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule has to say about a declaration: `reason` says why it matters and what to do.

    An error cannot be applied; a warning can.
    """

    rule: str
    severity: Severity
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that applying would do, in the order in which it is done, and what the rules found."""

    project: str
    changes: Sequence[Change] = ()
    findings: Sequence[Finding] = ()
    # How many of each kind the project owns on the server, for the brake.
    owned: int = 0
    # What it owns and no longer declares, and keeps because nothing said to prune.
    kept: Sequence[Change] = field(default=())

    @property
    def to_do(self) -> list[Change]:
        """What is not as declared."""
        return [change for change in self.changes if change.kind != "unchanged"]

    @property
    def errors(self) -> list[Finding]:
        """What must be mended before anything can be applied."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def without(self, names: Collection[str], rule: str, why: str) -> Plan:
        """Without the automations of these names; that they break `rule`, or that they are left out, is a warning."""
        found = [
            replace(one, severity="warning") if one.rule == rule and one.name in names else one for one in self.findings
        ]
        told = {one.name for one in found if one.rule == rule}
        found += [Finding(rule=rule, severity="warning", name=name, reason=why) for name in sorted({*names} - told)]
        kept = [one for one in self.changes if one.what != "automation" or one.name not in names]
        return replace(self, changes=kept, findings=found)

    def count(self, *kinds: Kind) -> int:
        """How many changes are of these kinds."""
        counts = Counter(change.kind for change in self.changes)
        return sum(counts[kind] for kind in kinds)

    @property
    def brakes(self) -> bool:
        """Whether more would be deleted than a slip of the pen should be able to."""
        return self.count("delete") > BRAKE * self.owned

    @property
    def digest(self) -> str:
        """What tells whether another plan would do the same to the same."""
        done = [
            (change.kind, change.what, change.name, change.existing, change.old, change.new) for change in self.to_do
        ]
        text = json.dumps([self.project, done], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _differences(path: str, old: Any, new: Any) -> Iterator[Difference]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(f"{path}.{name}" if path else name, old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _holds_forms(old, new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{index}]", one, other)
    else:
        yield Difference(path=path, old=old, new=new)


def _holds_forms(*lists: list[Any]) -> bool:
    return all(isinstance(item, dict) for found in lists for item in found)
