"""Setting right what a run's death left on Prefect's server, which looks after no dead runs itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Crashed

from penstock.worker.taken import Taken

_NEXT = "What it had not finished is done by the next run."
_PERHAPS = "it may have finished; see penstock status"
# No worker leaves a run Pending for so long: it begins within seconds.
LONGEST_PENDING = timedelta(minutes=5)


def is_too_early(there: State[Any] | None, taken: Taken, now: datetime) -> bool:
    """Whether the run may be another worker's that is about to begin it, so that it is to be looked at again later."""
    return (
        taken.unsure
        and there is not None
        and there.type is StateType.PENDING
        and now - there.timestamp < LONGEST_PENDING
    )


def state_of_dead(there: State[Any] | None, taken: Taken) -> State[Any] | None:
    """What a run without a process is to become; None where the server's state is right as it is.

    Scheduled: it waits for a worker, this or another. Paused: its process ended on purpose. Final: it was reported.
    """
    if there is None or there.type not in (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
        return None
    if taken.unsure and there.type is not StateType.PENDING:
        return None  # it was never begun here: whoever claimed it looks after it
    if there.type is StateType.CANCELLING:
        return Cancelled(message="Cancelled; its process is gone.")
    if taken.unsure:
        what = "It was claimed, but the answer was lost, and no worker has begun it"
    elif taken.by is not None:
        how = "killed with its worker, or ended while Prefect's server was away"
        what = f"Its process {taken.by.pid} is gone, {how}: {_PERHAPS}"
    elif there.type is StateType.RUNNING:
        # Not found out on a system without /proc, or not written: a full disk, a death in between.
        what = f"Its worker has lost it, and which process it had is not known: {_PERHAPS}"
    else:
        what = "It was claimed, and its worker died before it began"
    return Crashed(message=f"{what}. {_NEXT}")


def state_of_cancelled(there: State[Any] | None) -> State[Any] | None:
    """What a run that was ended because somebody cancelled it is to become; None: it reported its end itself.

    Crashed is how Prefect's engine reports a signal when it does not know of the cancellation.
    """
    if there is not None and there.type in (StateType.CANCELLED, StateType.COMPLETED, StateType.FAILED):
        return None
    return Cancelled(message="Cancelled; the worker ended its process.")
