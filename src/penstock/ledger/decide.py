"""The ledger's decisions, without I/O: what a stat means, and what a failure means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Literal

from penstock.declarations import LEAST_ATTEMPTS, Dataset
from penstock.keys import prefixes
from penstock.model import State

# The reason of what `on_overwrite="ignore"` left alone, as against what somebody dropped.
OVERWRITE_IGNORED = "overwritten, and the dataset ignores that"

OnOverwrite = Literal["replace", "append", "ignore"]

# What waits before a transient error is tried again: 1 s, doubled each time, up to this.
LONGEST_BACKOFF = timedelta(minutes=1)

# After so many failures an object is claimed alone; it is tried so at least once.
ALONE_AFTER = LEAST_ATTEMPTS - 1


@dataclass(frozen=True, kw_only=True)
class Known:
    """The latest generation of a key, as the ledger has it; `tried` when a run had it, so that it may be loaded."""

    id: int
    generation: int
    etag: str
    state: State
    version_id: str | None = None
    tried: bool = False


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A new generation to insert. `supersedes` is the older row that must not be loaded any more, if any."""

    number: int
    state: State
    reason: str | None = None
    supersedes: int | None = None


def decide_arrival(
    latest: Known | None, etag: str, on_overwrite: OnOverwrite, *, versioned: bool, put_again: bool = False
) -> Generation | None:
    """What a stat of a key means: None when the ledger knows that generation already.

    `put_again`: somebody has certainly put these bytes anew, which gives what is in quarantine another chance.

    Only the latest generation's etag counts, so that A, B, A again is three. An overwritten generation that no run had
    is superseded, unless `append` wants it and the store can still give its bytes; one that a run had stays, because it
    may be in the warehouse, and the next run finds out. `ignore` leaves an overwrite alone only while the earlier bytes
    were read, may have been, or still can be: else nothing of the key would be loaded.
    """
    if latest is None:
        return Generation(number=1, state=State.PENDING)
    retried = put_again and latest.state is State.QUARANTINED
    if latest.etag == etag and latest.state not in (State.MISSING, State.SUPERSEDED) and not retried:
        return None
    number = latest.generation + 1
    untried = latest.state in (State.WAITING, State.PENDING) and not latest.tried
    gone = latest.state in (State.MISSING, State.SUPERSEDED) or (untried and not versioned)
    if on_overwrite == "ignore" and not gone and latest.state is not State.QUARANTINED:
        return Generation(number=number, state=State.IGNORED, reason=OVERWRITE_IGNORED)
    readable = on_overwrite == "append" and versioned
    waiting = (untried or latest.state is State.QUARANTINED) and not readable
    return Generation(number=number, state=State.PENDING, supersedes=latest.id if waiting else None)


def no_dataset(key: str, datasets: Sequence[Dataset] = ()) -> str:
    """Why a key that none of the datasets takes waits, and what to do about it."""
    folder, slash, _ = key.partition("/")
    if not slash:
        return "it lies in no folder: move it to the folder of a dataset; a new one is declared in flows/"
    near = [dataset for dataset in datasets if any(key.startswith(prefix) for prefix in prefixes(dataset))]
    if near:
        asked = ", ".join(f"{dataset.name} takes {dataset.match!r}" for dataset in near)
        return (
            f"no dataset takes a key like it: below {near[0].prefix!r} {asked}. Change match in flows/, or the file's "
            "name"
        )
    return (
        f"no dataset takes {folder + slash!r}: declare one in flows/ with that prefix, or move the file to the folder "
        "of a dataset"
    )


def backoff(hiccups: int) -> timedelta:
    """How long to wait after the `hiccups`-th (from 1) transient error in a row."""
    return min(timedelta(seconds=2 ** min(hiccups - 1, 10)), LONGEST_BACKOFF)


def together(attempts: int, max_objects: int) -> int:
    """How many objects may be claimed together when one of them has failed, or killed its run, `attempts` times.

    An eighth of the bound, then an eighth of that, then it alone: innocent neighbours are rid of the culprit after a
    few attempts, and a thousand objects that a crash took along are not loaded one by one.
    """
    return 1 if attempts >= ALONE_AFTER else max(1, max_objects >> (3 * attempts))


def is_poison(attempts: int, max_attempts: int) -> bool:
    """Whether something that failed, or killed its run, `attempts` times has had its chances; the last was alone."""
    return attempts >= max(max_attempts, LEAST_ATTEMPTS)


# A newer generation in one of these stands for its key; one that was never read does not.
_STANDS = frozenset({State.WAITING, State.PENDING, State.CLAIMED, State.LOADED, State.EMPTY})


class Again(IntEnum):
    """How something is loaded that the warehouse may have: `objects.again`."""

    NO = 0
    OVER_ITS_ROWS = 1
    ONLY_REJECTED = 2


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row that somebody wants to have loaded again.

    `on_overwrite` is that of the dataset that takes it (None: no dataset does). `newer` and `older` are the states of
    the other generations of its key. `readable`: the store can still give these bytes once there are newer ones.
    `rejected` is how many of its rows were put aside. `marker`: a marker file.
    """

    state: State
    on_overwrite: OnOverwrite | None
    no_dataset: str = ""
    refused_in_inbox: bool = False
    is_notification: bool = False
    readable: bool = True
    again: bool = False
    marker: bool = False
    rejected: int = 0
    newer: frozenset[State] = frozenset()
    older: frozenset[State] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ReplayVerdict:
    """`refused` says why not and what to do; None: it goes to pending, to be loaded as `again` says."""

    refused: str | None = None
    again: Again = Again.NO


def decide_replay(candidate: Candidate, *, force: bool, only_rejected: bool = False) -> ReplayVerdict:
    """Whether something may be loaded again. Nothing is ever loaded twice, nor over what is newer.

    `only_rejected`: of what is loaded the rows that were put aside, and nothing else.
    """
    refused = _why_no_replay(candidate, force=force or only_rejected)
    if refused is None and only_rejected:
        refused = _why_no_rejected(candidate)
    if refused is not None:
        return ReplayVerdict(refused=refused)
    if only_rejected:
        return ReplayVerdict(again=Again.ONLY_REJECTED)
    # What was empty may have a marker all the same, when it emptied an older generation: only `again` reads it anew.
    over = candidate.again or candidate.state in (State.LOADED, State.EMPTY)
    return ReplayVerdict(again=Again.OVER_ITS_ROWS if over else Again.NO)


def _why_no_rejected(candidate: Candidate) -> str | None:
    if candidate.state is not State.LOADED:
        return f"it is {candidate.state.value} as a whole, with all of its rows: replay it without --rejected"
    return None if candidate.rejected else "none of its rows was rejected"


def _why_no_replay(candidate: Candidate, *, force: bool) -> str | None:
    state, policy = candidate.state, candidate.on_overwrite
    stands = next((s.value for s in sorted(candidate.newer & _STANDS)), "")
    reasons = (
        (
            candidate.refused_in_inbox,
            "it never left the inbox: mend it as its reason says, and drop the file there again",
        ),
        (
            candidate.is_notification,
            "it is a notification that could not be used, not an object: penstock sweep records what is in the bucket, "
            "penstock quarantine drop gives this up",
        ),
        (candidate.marker, "it is a marker file, of which nothing is loaded: replay what waits for it"),
        (state is State.SUPERSEDED, "a newer generation took its place: put the file again"),
        (state is State.CLAIMED, "a run has it now: wait until that run is done"),
        (state is State.PENDING, "it waits for a run already"),
        (policy is None, candidate.no_dataset),
        (
            policy == "replace" and stands,
            f"a newer generation of its key is {stands}: replay that one, or put the file again",
        ),
        (
            candidate.newer and not candidate.readable,
            "its key was overwritten and the store kept no version of it: put the file again",
        ),
        (
            policy == "ignore" and state is not State.LOADED and candidate.older & _STANDS,
            "an older generation of its key stands, and the dataset ignores overwrites: change its on_overwrite first",
        ),
        (state is State.LOADED and not force, "it is loaded; --force replaces its rows"),
    )
    return next((reason for applies, reason in reasons if applies), None)
