"""What may be loaded again, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from penstock.cli.quarantine import run_link
from penstock.cli.replay import since
from penstock.ledger.decide import Again, Candidate, OnOverwrite, ReplayVerdict, decide_replay
from penstock.model import State

ENDS = (State.QUARANTINED, State.MISSING, State.EMPTY, State.IGNORED)
GOES = ReplayVerdict()
AGAIN = ReplayVerdict(again=Again.OVER_ITS_ROWS)


def candidate(state: State, on_overwrite: OnOverwrite | None = "replace", **changes: object) -> Candidate:
    return replace(Candidate(state=state, on_overwrite=on_overwrite), **changes)  # type: ignore[arg-type]


def refused(found: Candidate, *, force: bool = True) -> str:
    verdict = decide_replay(found, force=force)
    assert verdict.refused
    assert not verdict.again
    return verdict.refused


@pytest.mark.parametrize("force", [True, False])
def test_what_was_never_loaded_is_plainly_pending(force: bool) -> None:
    """Whatever ended without rows goes back as if it had just come; only what was empty is read anew in any case."""
    for state in ENDS:
        verdict = decide_replay(candidate(state), force=force)
        assert verdict == (AGAIN if state is State.EMPTY else GOES), state


def test_what_is_loaded_needs_force_and_replaces_its_rows() -> None:
    """Without force it is refused with the option's name, with it the load takes its old rows out."""
    assert refused(candidate(State.LOADED), force=False) == "it is loaded; --force replaces its rows"
    assert decide_replay(candidate(State.LOADED), force=True) == AGAIN


def test_a_quarantined_replay_still_replaces() -> None:
    """What was to be loaded over its own rows, and failed, is so again."""
    assert decide_replay(candidate(State.QUARANTINED, again=True), force=False) == AGAIN


@pytest.mark.parametrize(
    ("state", "says"),
    [(State.SUPERSEDED, "put the file again"), (State.CLAIMED, "a run has it"), (State.PENDING, "waits for a run")],
)
def test_never(state: State, says: str) -> None:
    """What was overwritten, is being loaded, or waits already is refused with the reason, force or not."""
    assert says in refused(candidate(state), force=True)
    assert says in refused(candidate(state), force=False)


def test_what_no_dataset_takes() -> None:
    """Without a dataset there is nobody to load it: the reason says what to do."""
    assert refused(candidate(State.QUARANTINED, None, no_dataset="declare one")) == "declare one"


def test_a_refused_file_of_the_inbox() -> None:
    """What never became an object can only be dropped again."""
    assert "drop the file there again" in refused(candidate(State.QUARANTINED, None, refused_in_inbox=True))


@pytest.mark.parametrize("state", [*ENDS, State.LOADED])
@pytest.mark.parametrize("newer", [State.PENDING, State.CLAIMED, State.LOADED, State.EMPTY])
def test_replace_never_brings_back_what_was_overwritten(state: State, newer: State) -> None:
    """With replace, a generation is not loaded over a newer one that stands."""
    assert newer.value in refused(candidate(state, newer=frozenset({newer})))


@pytest.mark.parametrize("newer", [State.QUARANTINED, State.MISSING, State.SUPERSEDED, State.IGNORED])
def test_a_newer_generation_that_was_never_read_is_in_nobodys_way(newer: State) -> None:
    """With replace, an older generation may be loaded while the newer one is not, if the store still has its bytes."""
    assert decide_replay(candidate(State.QUARANTINED, newer=frozenset({newer})), force=False) == GOES


@pytest.mark.parametrize("on_overwrite", ["replace", "append", "ignore"])
def test_bytes_that_are_gone_are_not_asked_for(on_overwrite: OnOverwrite) -> None:
    """Where the store keeps no versions, an overwritten generation is refused: it could only end as superseded."""
    gone = candidate(State.LOADED, on_overwrite, newer=frozenset({State.MISSING}), readable=False)
    assert "no version" in refused(gone)
    assert decide_replay(replace(gone, newer=frozenset()), force=True) == AGAIN


def test_append_loads_each_generation() -> None:
    """With append a newer generation that is loaded does not matter."""
    newer = frozenset({State.LOADED})
    assert decide_replay(candidate(State.QUARANTINED, "append", newer=newer), force=False) == GOES


def test_ignore_keeps_to_the_first() -> None:
    """With ignore an overwrite is not loaded beside the generation that stands, only where none does."""
    assert "on_overwrite" in refused(candidate(State.IGNORED, "ignore", older=frozenset({State.LOADED})))
    assert decide_replay(candidate(State.IGNORED, "ignore", older=frozenset({State.MISSING})), force=False) == GOES
    newer = frozenset({State.IGNORED})
    assert decide_replay(candidate(State.LOADED, "ignore", newer=newer), force=True) == AGAIN


def test_only_rejected_rows_of_what_is_loaded() -> None:
    """Without force; whatever has no rows in the table, or none to mend, is refused, and so is what was overwritten."""
    bad = candidate(State.LOADED, rejected=1)
    assert decide_replay(bad, force=False, only_rejected=True) == ReplayVerdict(again=Again.ONLY_REJECTED)
    says = {
        State.LOADED: "none of its rows was rejected",
        State.PENDING: "waits for a run",
        State.CLAIMED: "a run has it",
        State.SUPERSEDED: "put the file again",
        **dict.fromkeys((*ENDS, State.WAITING), "without --rejected"),
    }
    assert set(says) == set(State)
    for state, why in says.items():
        found = candidate(state, rejected=0 if state is State.LOADED else 1)
        assert why in str(decide_replay(found, force=False, only_rejected=True).refused), state
    newer = replace(bad, newer=frozenset({State.LOADED}))
    assert "newer generation" in str(decide_replay(newer, force=False, only_rejected=True).refused)


def test_since() -> None:
    """An age counts back from now, a date is local midnight, and anything else is no moment."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert since("2h", now) == now - timedelta(hours=2)
    assert since("30m", now) == now - timedelta(minutes=30)
    assert since("7d", now) == now - timedelta(days=7)
    assert since("2026-02-01T10:00:00+01:00", now) == datetime(2026, 2, 1, 9, tzinfo=UTC)
    assert since("2026-02-01", now) == datetime(2026, 2, 1).astimezone()
    for wrong in ("", "2", "yesterday", "-1h", "2y", "999999999w", "1h 2m"):
        with pytest.raises(ValueError):  # noqa: PT011  the command words it
            since(wrong, now)


def test_run_link() -> None:
    """A run of Prefect's is linked to its UI; what is no run's id, or has no server, is not."""
    run = "0f9d0b3e-6a0c-4b86-9d4e-2f8f6c9b1a11"
    assert run_link("http://127.0.0.1:4200/api", run) == f"http://127.0.0.1:4200/runs/flow-run/{run}"
    assert run_link("http://127.0.0.1:4200/api/", run) == f"http://127.0.0.1:4200/runs/flow-run/{run}"
    assert run_link("https://u:p@w@host/api", run) == f"https://host/runs/flow-run/{run}"
    assert run_link("", run) is None
    assert run_link("http://127.0.0.1:4200/api", "by hand") is None
    assert run_link("http://127.0.0.1:4200/api", None) is None
