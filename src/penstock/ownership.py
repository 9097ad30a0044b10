"""Whose something on a Prefect server is: its tags tell (docs/adr/0019). Pure, and without Prefect."""

from __future__ import annotations

from collections.abc import Iterable

# How the tags begin that tell whose something is, and what was applied last.
OWNER_PREFIX = "penstock:"
APPLIED_PREFIX = "penstock.applied:"


def owner_tag(project: str) -> str:
    """The tag by which penstock knows a project's own among others on the server."""
    return OWNER_PREFIX + project


def owner(tags: Iterable[str]) -> str | None:
    """The project that owns what has these tags; None: nobody that penstock knows."""
    return next((tag.removeprefix(OWNER_PREFIX) for tag in sorted(tags) if tag.startswith(OWNER_PREFIX)), None)
