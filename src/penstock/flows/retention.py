"""What of a key may go from the store, and in which order. Pure.

What is removed is removed by its version: an overwrite that comes at the same moment is another version and stays. The
newest goes last, once nothing older is left, so that nothing older ever becomes the newest again and is loaded as new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.ledger.archive import Held
from penstock.model import State, Version

# Loaded, or never to be: nobody reads these bytes again.
_DONE = frozenset({State.LOADED, State.EMPTY, State.SUPERSEDED, State.MISSING})
# A delivery that somebody dropped does not keep the others of its envelope.
_DONE_DELIVERY = _DONE | {State.IGNORED}
_READ = frozenset({State.LOADED, State.EMPTY})
# A run looked for these bytes and they were not there.
_GONE = frozenset({State.MISSING, State.SUPERSEDED})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Version ids to remove `first`, in any order; then `last`, unless one of those is left.

    None in the place of an id is the object itself, in a bucket without versions. `archive` are the rows whose bytes
    are gone by then, or were before. `kept`: it is old enough, and could go if the bucket kept versions.
    """

    first: tuple[str | None, ...] = ()
    last: str | None = None
    archive: tuple[Held, ...] = ()
    kept: bool = False


def done_deliveries(held: Sequence[Held], *, before: datetime) -> bool:
    """Whether an envelope may go: each of its deliveries has come to its end before then."""
    return all(row.entry and row.state in _DONE_DELIVERY and row.changed_at < before for row in held)


def plan_versions(held: Sequence[Held], versions: Sequence[Version], *, before: datetime, unknown_too: bool) -> Plan:
    """What may go of a key in a bucket with versions; `versions` with the latest at the end.

    `unknown_too`: a version that the ledger never saw, since it was overwritten at once, may go as well.
    """
    if any(row.entry for row in held):
        return Plan()
    ended = all(_is_done(row, before) for row in held)
    if not versions:
        return Plan(archive=tuple(held) if ended else _overwritten(held, before, ()))
    *older, latest = versions
    first = [version.id for version in older if _may_go(version, held, before, unknown_too)]
    clear = ended and len(first) == len(older)
    newest = held[-1]
    current = _match(latest, held) is newest
    if latest.marker:
        # Somebody removed the key; the marker hides what is left, and goes when nothing is.
        ends = clear and latest.modified < before
    else:
        ends = clear and current and newest.state in _READ and _is_old(latest, newest, before)
    if ends:
        return Plan(first=tuple(first), last=latest.id, archive=tuple(held))
    if current:
        # Its bytes were put again and stay; so does the version by which its row, and a replay, finds them.
        first = [id for id in first if id != newest.version_id]
    kept = [row for version in versions if version.id not in first and (row := _match(version, held))]
    return Plan(first=tuple(first), archive=_overwritten(held, before, kept))


def plan_without_versions(held: Sequence[Held], *, before: datetime) -> Plan:
    """As `plan_versions` where the bucket keeps none: nothing is removed, so the store need not be asked.

    Neither MinIO nor rclone removes a key on the condition that it still is what it was, so that what was put at the
    same moment would be lost. Rows go only of whose bytes the ledger knows that they are gone.
    """
    if any(row.entry for row in held):
        return Plan()
    ended = all(_is_done(row, before) for row in held)
    if ended and held[-1].state in _GONE:
        return Plan(archive=tuple(held))
    return Plan(archive=_overwritten(held, before, ()), kept=ended)


def _is_done(row: Held, before: datetime) -> bool:
    return row.state in _DONE and row.changed_at < before


def _is_old(version: Version, row: Held, before: datetime) -> bool:
    """Whether a version of a generation that is done is old: where it was put again later, it is as old as that."""
    return version.id == row.version_id or version.modified < before


def _match(version: Version, held: Sequence[Held]) -> Held | None:
    """The generation that a version is: by its id, or the newest by its etag.

    The same bytes put again are no new generation, and an object from before the bucket had versions has no id.
    """
    newest = held[-1]
    by_id = next((row for row in held if row.version_id == version.id), None)
    return by_id or (newest if version.etag == newest.etag and not version.marker else None)


def _may_go(version: Version, held: Sequence[Held], before: datetime, unknown_too: bool) -> bool:
    row = _match(version, held)
    if version.marker:
        return version.modified < before
    if row is None:
        return unknown_too and version.modified < before
    return _is_done(row, before) and _is_old(version, row, before)


def _overwritten(held: Sequence[Held], before: datetime, kept: Sequence[Held]) -> tuple[Held, ...]:
    """Generations that a newer one replaced: their rows may go while their key lives on, once their bytes are gone."""
    return tuple(
        row for row in held[:-1] if row.state is State.SUPERSEDED and row.changed_at < before and row not in kept
    )
