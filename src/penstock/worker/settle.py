"""Setting right what a run's death left on Prefect's server, which looks after no dead runs itself."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Crashed

from penstock.worker.taken import Taken

_NEXT = "What it had not finished is done by the next run."


def state_of_dead(there: State[Any] | None, taken: Taken) -> State[Any] | None:
    """What a run without a process is to become; None where the server's state is right as it is.

    Scheduled: it waits for a worker, this or another. Paused: its process ended on purpose. Final: it was reported.
    """
    if there is None or there.type not in (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
        return None
    if there.type is StateType.CANCELLING:
        return Cancelled(message="Cancelled; its process is gone.")
    if taken.by is None:
        if there.type is StateType.RUNNING:
            return None  # not by us: it had no process
        return Crashed(message=f"It was claimed, and its worker died before it began. {_NEXT}")
    how = "killed with its worker, or ended while Prefect's server was away"
    return Crashed(message=f"Its process {taken.by.pid} is gone: {how}. {_NEXT}")


def state_of_cancelled(there: State[Any] | None) -> State[Any] | None:
    """What a run that was ended because somebody cancelled it is to become; None: it reported its end itself.

    Crashed is how Prefect's engine reports a signal when it does not know of the cancellation.
    """
    if there is not None and there.type in (StateType.CANCELLED, StateType.COMPLETED, StateType.FAILED):
        return None
    return Cancelled(message="Cancelled; the worker ended its process.")
