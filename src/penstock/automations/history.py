"""What the automations of a server did lately, as lines to be shown. Pure, and without Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.outbox.prefect_history import Count, FailedAction
from penstock.ownership import owner


@dataclass(frozen=True, kw_only=True)
class Past:
    """One automation: `owner` is the project that applied it, None where nobody did whom penstock knows.

    `acted` and `failed` count actions; `reason` is why the last of those that failed did.
    """

    id: str
    name: str
    enabled: bool
    owner: str | None
    last_fired: datetime | None
    acted: int
    failed: int
    last_failed: datetime | None
    reason: str | None


def past_of(
    automations: Sequence[Mapping[str, Any]],
    *,
    fired: Mapping[str, Count],
    acted: Mapping[str, Count],
    failed: Mapping[str, Count],
    failures: Sequence[FailedAction],
) -> list[Past]:
    """A line for each automation, by name; counts of those that no longer exist are left out."""
    last = {failure.automation_id: failure for failure in sorted(failures, key=lambda one: one.at)}
    lines = [
        Past(
            id=found["id"],
            name=found["name"],
            enabled=found["enabled"],
            owner=owner(found.get("tags") or []),
            last_fired=fired[found["id"]].last if found["id"] in fired else None,
            acted=_number(acted, found["id"]),
            failed=_number(failed, found["id"]),
            last_failed=last[found["id"]].at if found["id"] in last else None,
            reason=last[found["id"]].reason if found["id"] in last else None,
        )
        for found in automations
    ]
    return sorted(lines, key=lambda line: (line.name, line.id))


def owned_by(lines: Sequence[Past], project: str) -> list[Past]:
    """Those of one project."""
    return [line for line in lines if line.owner == project]


def _number(counts: Mapping[str, Count], automation: str) -> int:
    return counts[automation].count if automation in counts else 0
