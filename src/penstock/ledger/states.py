"""The states of an object or delivery, and which may follow which. Pure.

waiting     recorded, but its sender says by another object when it is whole, and has not said so yet.
pending     recorded, waiting for a run. The relay wakes a run for it, again and again, until one claims it.
claimed     a run that holds the dataset's lease works on it. Dies the run, the next holder takes the claim back.
loaded      its rows and its marker are in the warehouse.
quarantined cannot be loaded; waits, with the reason, for `penstock replay`.
empty       had no bytes or no records.
missing     was deleted before it was read: a run found that out, or the store told so before any run had it.
superseded  was overwritten, before or after it was loaded; its rows are not in the table.
ignored     left alone on purpose: `on_overwrite="ignore"`, a marker file, or dropped from quarantine.

`penstock replay` moves every end but `superseded` back to pending: a loaded object only when it is forced to, and then
the load takes its old rows out in the transaction that brings the new ones; or for its rejected rows, and then it adds
those of them that are good by now.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.model import State

MOVES: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.PENDING, State.MISSING, State.SUPERSEDED, State.IGNORED}),
    State.PENDING: frozenset({State.CLAIMED, State.MISSING, State.SUPERSEDED}),
    State.CLAIMED: frozenset(
        {State.PENDING, State.LOADED, State.QUARANTINED, State.EMPTY, State.MISSING, State.SUPERSEDED}
    ),
    State.LOADED: frozenset({State.PENDING, State.SUPERSEDED}),
    State.QUARANTINED: frozenset({State.WAITING, State.PENDING, State.SUPERSEDED, State.IGNORED}),
    State.EMPTY: frozenset({State.PENDING}),
    State.MISSING: frozenset({State.PENDING}),
    State.SUPERSEDED: frozenset(),
    State.IGNORED: frozenset({State.PENDING, State.MISSING}),
}

# What a fresh row may be born as: a refused file and an unknown prefix are quarantined from the start.
BIRTHS = frozenset({State.WAITING, State.PENDING, State.QUARANTINED, State.IGNORED})

# The ends of a claim.
OUTCOMES = MOVES[State.CLAIMED] - {State.PENDING}


def sources(target: State) -> list[str]:
    """The states from which `target` may be reached, sorted: every UPDATE of a state names them in its WHERE."""
    return sorted(state.value for state, targets in MOVES.items() if target in targets)


def next_step(state: State, *, removed: bool = False, key: str = "KEY") -> str:
    """What happens next to something in `state`, for `penstock why`; `removed` by retention.

    `key` names it in commands, as a shell takes it.
    """
    if removed:
        rows = "its rows are in the warehouse, and " if state is State.LOADED else ""
        return f"nothing; {rows}retention archived it. To load it: put it again"
    return {
        State.WAITING: "it is loaded as soon as the object comes that it waits for. "
        f"Not to wait: penstock replay {key}",
        State.PENDING: "a run loads it as soon as it is woken; look again in a few seconds",
        State.CLAIMED: "the run that holds it loads it; if that run died, the next one takes it over",
        State.LOADED: f"nothing; its rows are in the warehouse. To replace them: penstock replay {key} --force",
        State.QUARANTINED: f"mend what the reason names; then penstock replay {key}, or drop the file again. "
        f"To give it up: penstock quarantine drop {key}",
        State.EMPTY: f"nothing; it had no records. To read it again: penstock replay {key}",
        State.MISSING: "put it again if it was deleted by mistake",
        State.SUPERSEDED: "nothing; a newer generation of the same key took its place",
        State.IGNORED: f"nothing; it was left alone on purpose. To load it all the same: penstock replay {key}",
    }[state]
