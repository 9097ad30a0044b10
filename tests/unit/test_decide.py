"""The ledger's decisions and its table of states, without I/O."""

from __future__ import annotations

from datetime import timedelta

import pytest

from penstock.ledger.decide import LONGEST_BACKOFF, Known, OnOverwrite, backoff, decide_arrival, is_poison, together
from penstock.ledger.states import BIRTHS, MOVES, OUTCOMES, next_step, sources
from penstock.model import State

EVERY: tuple[OnOverwrite, ...] = ("replace", "append", "ignore")


def known(state: State, etag: str = "a", generation: int = 3) -> Known:
    return Known(id=7, generation=generation, etag=etag, state=state)


@pytest.mark.parametrize("on_overwrite", EVERY)
@pytest.mark.parametrize("versioned", [True, False])
def test_a_new_key_is_generation_one(on_overwrite: OnOverwrite, versioned: bool) -> None:
    """A key never seen is pending as generation 1, whatever the dataset says of overwriting."""
    found = decide_arrival(None, "a", on_overwrite, versioned=versioned)
    assert found is not None
    assert (found.number, found.state, found.supersedes, found.reason) == (1, State.PENDING, None, None)


@pytest.mark.parametrize("on_overwrite", EVERY)
@pytest.mark.parametrize("state", State)
def test_the_same_etag_is_nothing_unless_its_bytes_were_never_read(on_overwrite: OnOverwrite, state: State) -> None:
    """The latest etag again is no new generation, except when that generation ended unread: then it is back."""
    found = decide_arrival(known(state), "a", on_overwrite, versioned=False)
    if state in (State.MISSING, State.SUPERSEDED):
        assert found is not None
        assert (found.number, found.state, found.supersedes) == (4, State.PENDING, None)
    else:
        assert found is None


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("state", State)
def test_replace_supersedes_what_waits(state: State, versioned: bool) -> None:
    """With replace another etag is a new pending generation, and what waited unloaded is superseded."""
    found = decide_arrival(known(state), "b", "replace", versioned=versioned)
    assert found is not None
    assert (found.number, found.state) == (4, State.PENDING)
    assert found.supersedes == (7 if state in (State.WAITING, State.PENDING, State.QUARANTINED) else None)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("state", State)
def test_append_keeps_what_can_still_be_read(state: State, versioned: bool) -> None:
    """With append an overwritten generation still loads where the store kept its bytes, and nowhere else."""
    found = decide_arrival(known(state), "b", "append", versioned=versioned)
    assert found is not None
    assert found.state is State.PENDING
    waits = state in (State.WAITING, State.PENDING, State.QUARANTINED)
    assert found.supersedes == (7 if waits and not versioned else None)


@pytest.mark.parametrize("state", [State.LOADED, State.CLAIMED, State.EMPTY, State.IGNORED])
@pytest.mark.parametrize("versioned", [True, False])
def test_ignore_leaves_an_overwrite_alone(state: State, versioned: bool) -> None:
    """With ignore another etag is recorded with a reason but not loaded, once the first was read or is being read."""
    found = decide_arrival(known(state), "b", "ignore", versioned=versioned)
    assert found is not None
    assert (found.number, found.state, found.supersedes) == (4, State.IGNORED, None)
    assert found.reason


def test_ignore_keeps_a_pending_first_generation_that_can_be_read() -> None:
    """With ignore and versions the first generation still waits and will load, so the overwrite is ignored."""
    found = decide_arrival(known(State.PENDING), "b", "ignore", versioned=True)
    assert found is not None
    assert (found.state, found.supersedes) == (State.IGNORED, None)


@pytest.mark.parametrize(
    ("state", "versioned", "supersedes"),
    [
        (State.PENDING, False, 7),
        (State.QUARANTINED, False, 7),
        (State.QUARANTINED, True, 7),
        (State.MISSING, False, None),
        (State.SUPERSEDED, False, None),
        (State.MISSING, True, None),
        (State.SUPERSEDED, True, None),
    ],
)
def test_ignore_never_loses_a_key_that_was_not_loaded(state: State, versioned: bool, supersedes: int | None) -> None:
    """With ignore a key whose earlier bytes are gone or were bad is loaded from the newer ones."""
    found = decide_arrival(known(state), "b", "ignore", versioned=versioned)
    assert found is not None
    assert (found.number, found.state, found.supersedes) == (4, State.PENDING, supersedes)


def test_backoff_doubles_up_to_its_limit() -> None:
    """The first transient error waits one second, each next one twice as long, never over the limit."""
    assert [backoff(n).total_seconds() for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(10**6) == LONGEST_BACKOFF == timedelta(minutes=1)


def test_poison_is_reached_at_the_last_attempt() -> None:
    """With five attempts allowed the fifth failure ends it, not the fourth; and never before it was tried alone."""
    assert [is_poison(n, 5) for n in range(7)] == [False, False, False, False, False, True, True]
    assert [is_poison(n, 1) for n in range(5)] == [False, False, False, False, True]


def test_a_failing_batch_is_split_until_the_culprit_is_alone() -> None:
    """An eighth of the bound after each failure, at least one, and one alone after the third."""
    assert [together(n, 1000) for n in range(5)] == [1000, 125, 15, 1, 1]
    assert [together(n, 10) for n in range(5)] == [10, 1, 1, 1, 1]
    assert together(3, 100_000) == 1


def test_every_state_has_moves_and_a_next_step() -> None:
    """The table covers every state, no state moves to itself, and `why` can say what is next."""
    assert set(MOVES) == set(State)
    assert all(state not in targets for state, targets in MOVES.items())
    assert all(next_step(state) for state in State)
    assert [state for state in State if "rows are in the warehouse" in next_step(state, removed=True)] == [State.LOADED]


@pytest.mark.parametrize("target", State)
def test_sources_are_the_table_read_backwards(target: State) -> None:
    """`sources` names exactly the states whose moves contain the target."""
    assert sources(target) == sorted(state.value for state in State if target in MOVES[state])


def test_every_state_can_be_reached() -> None:
    """From the births every state is reachable, and a claim can only end in an outcome or go back."""
    reached = set(BIRTHS)
    while more := {target for state in reached for target in MOVES[state]} - reached:
        reached |= more
    assert reached == set(State)
    assert set(sources(State.CLAIMED)) == {"pending"}
    assert State.PENDING not in OUTCOMES
    assert State.CLAIMED not in OUTCOMES
