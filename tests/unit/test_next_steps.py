"""What is next, for everything that people ask about."""

from __future__ import annotations

import shlex

import pytest

from penstock.cli.next_steps import next_of
from penstock.ledger.states import MOVES, next_step
from penstock.model import State

ENVELOPE = "landing/_penstock/deliveries/a.ndjson@1#1"
# What a replay may move by hand.
REPLAYED = [state for state in State if State.PENDING in MOVES[state] and state is not State.CLAIMED]


@pytest.mark.parametrize("state", REPLAYED)
def test_a_delivery_is_named_as_it_is_shown(state: State) -> None:
    """What may be loaded again is so by source:id, quoted for a shell."""
    step = next_of(state, name=ENVELOPE, delivery="shop:#1 $(x)")
    assert "KEY" not in step
    assert f"penstock deliveries replay {shlex.quote('shop:#1 $(x)')}" in step
    assert ("--force" in step) is (state is State.LOADED)


@pytest.mark.parametrize("state", State)
def test_what_retention_removed_is_not_replayed(state: State) -> None:
    """Nor put again: its sender's retry is a duplicate."""
    step = next_of(state, name=ENVELOPE, delivery="shop:1", removed=True)
    assert "replay" not in step
    assert "put it again" not in step


@pytest.mark.parametrize("state", [State.QUARANTINED, State.IGNORED])
def test_a_notification_is_not_replayed(state: State) -> None:
    """It is no object, in quarantine and once it was given up."""
    step = next_of(state, name="(notifications)/abc@1")
    assert "replay" not in step
    assert "penstock sweep" in step
    assert ("penstock quarantine drop '(notifications)/abc@1'" in step) is (state is State.QUARANTINED)


def test_what_was_refused_in_the_inbox_is_not_replayed() -> None:
    """It is dropped there again."""
    step = next_of(State.QUARANTINED, name="(inbox)/sales/a.csv@1")
    assert "replay" not in step
    assert "drop the file into the inbox again" in step


@pytest.mark.parametrize("state", State)
def test_an_object_is_told_of_as_before(state: State) -> None:
    """By the ledger's own words, with its name as a shell takes it."""
    step = next_of(state, name="landing/sales/a b.csv@1")
    assert step == next_step(state, key="'landing/sales/a b.csv@1'")
    assert "KEY" not in step


def test_rejected_rows_are_looked_for_by_their_dataset() -> None:
    """Both commands can be copied."""
    step = next_of(State.LOADED, name="landing/sales/a b.csv@1", rejected=2, dataset="sales")
    assert "penstock quarantine rejected sales says why" in step
    assert "penstock replay --rejected 'landing/sales/a b.csv@1'" in step


@pytest.mark.parametrize("delivery", [None, "shop:1"], ids=["object", "delivery"])
@pytest.mark.parametrize("rejected", [0, 2])
def test_where_rows_are_is_said_of_what_was_loaded(delivery: str | None, rejected: int) -> None:
    """In the place of that they are in the warehouse."""
    step = next_of(State.LOADED, name=ENVELOPE, delivery=delivery, rejected=rejected, rows="2 rows, all of which went")
    assert "2 rows, all of which went" in step
    assert "in the warehouse" not in step


@pytest.mark.parametrize("state", State)
def test_while_nothing_runs_what_a_run_would_do_is_not_promised(state: State) -> None:
    """What is to be done first is said first; what no run is needed for is as before."""
    step = next_of(state, name=ENVELOPE, down=True)
    waits = state in (State.WAITING, State.PENDING, State.CLAIMED)
    assert step.startswith("nothing is running: penstock up. Then ") is waits
