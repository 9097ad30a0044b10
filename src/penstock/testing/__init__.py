"""Doubles, the conformance suites that the real parts pass too, and tests of automations without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.testing.automations import (
        accepted,
        arrived,
        does_not_fire,
        event,
        fires,
        loaded,
        lost,
        pending,
        quarantined,
        why_not,
    )

__all__ = [
    "accepted",
    "arrived",
    "does_not_fire",
    "event",
    "fires",
    "loaded",
    "lost",
    "pending",
    "quarantined",
    "why_not",
]


def __getattr__(name: str) -> Any:
    # Late: Prefect takes seconds to import, and the doubles need none of it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from penstock.testing import automations

    return getattr(automations, name)
