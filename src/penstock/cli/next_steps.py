"""What helps next with an object, a delivery, or what never became one; commands can be copied as they stand. Pure."""

from __future__ import annotations

import shlex

from penstock.cli.running import NOTHING_RUNS
from penstock.model import NOTIFICATIONS_BUCKET, REFUSED_BUCKET, State

IN_THE_TABLE = "its rows are in the warehouse"
# What a run is to do, which there is none of while nothing runs.
_AWAITED = (State.WAITING, State.PENDING, State.CLAIMED)


def next_of(
    state: State,
    *,
    name: str,
    delivery: str | None = None,
    removed: bool = False,
    rejected: int | None = 0,
    dataset: str | None = None,
    rows: str = IN_THE_TABLE,
    down: bool = False,
) -> str:
    """What is next for what has this full name; `delivery` is its `source:id` where it is one.

    `rows` says of what was loaded where its rows are; `down`: it is known that nothing runs that would load anything.
    """
    step = _step_of(state, name=name, delivery=delivery, removed=removed, rejected=rejected, dataset=dataset)
    step = step.replace(IN_THE_TABLE, rows) if state is State.LOADED else step
    return f"{NOTHING_RUNS}. Then {step}" if down and state in _AWAITED and not removed else step


def _step_of(
    state: State, *, name: str, delivery: str | None, removed: bool, rejected: int | None, dataset: str | None
) -> str:
    from penstock.ledger.states import next_step

    if state is State.LOADED and rejected and not removed:
        look = f": penstock quarantine rejected {shlex.quote(dataset)} says why" if dataset else ""
        return (
            f"{IN_THE_TABLE}, but for {rejected:,} that were rejected{look}. "
            "The declaration mended: penstock replay --rejected " + shlex.quote(delivery or name)
        )
    if delivery is not None:
        return _of_delivery(state, shlex.quote(delivery), removed=removed)
    if name.startswith(f"{NOTIFICATIONS_BUCKET}/"):
        return _of_notification(state, shlex.quote(name))
    if name.startswith(f"{REFUSED_BUCKET}/") and state is State.QUARANTINED:
        return (
            "mend what the reason names, and drop the file into the inbox again. "
            f"To give it up: penstock quarantine drop {shlex.quote(name)}"
        )
    return next_step(state, removed=removed, key=shlex.quote(name))


def _of_delivery(state: State, id: str, *, removed: bool) -> str:
    from penstock.ledger.states import next_step

    if removed:
        rows = f"{IN_THE_TABLE}, and " if state is State.LOADED else ""
        return f"nothing; {rows}retention removed its envelope"
    replay = f"penstock deliveries replay {id}"
    steps = {
        State.WAITING: f"it is loaded as soon as it is whole. Not to wait: {replay}",
        State.LOADED: f"nothing; {IN_THE_TABLE}. To replace them: {replay} --force",
        State.QUARANTINED: f"mend what the reason names; then {replay}. To give it up: penstock quarantine drop {id}",
        State.EMPTY: f"nothing; it had no records. To read it again: {replay}",
        # Its sender cannot help: the id is known, and a retry is a duplicate.
        State.MISSING: f"put its envelope back where it was, if it was deleted by mistake; then {replay}",
        State.IGNORED: f"nothing; it was left alone on purpose. To load it all the same: {replay}",
    }
    return steps.get(state) or next_step(state)


def _of_notification(state: State, name: str) -> str:
    if state is State.QUARANTINED:
        return (
            "it is no object: do what the reason says; penstock sweep records what is in the bucket. "
            f"To give it up: penstock quarantine drop {name}"
        )
    return "nothing; it is no object, and was given up. penstock sweep records what is in the bucket"
