"""Arrivals while Prefect's server, or every worker, is away: with the real server, relay and worker."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from penstock.model import State
from tests.integration.prefect_parts import PrefectParts, prefect_server
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    """A server with the deployment and its automation."""
    with prefect_server(tmp_path_factory.mktemp("outage")) as made:
        yield made


@pytest.fixture
def parts(server: PrefectParts) -> Iterator[PrefectParts]:
    """The server and a relay, and nothing that waits."""
    server.start_relay()
    try:
        yield server
    finally:
        server.kill_if_alive("relay")
        server.rest()


def test_what_arrived_without_a_server_is_loaded_without_a_stampede(parts: PrefectParts) -> None:
    """Fifty arrivals while the server is killed and away are loaded when it is back, by three runs at the most."""
    parts.start_worker()
    parts.arrive("sales/before.csv")
    wait_for(lambda: parts.states("sales/before.csv") == [State.LOADED], seconds=60, what="the pipe works")
    before = len(parts.runs())
    parts.kill("server")
    keys = [f"sales/{number}.csv" for number in range(50)]
    for key in keys:
        parts.arrive(key)
    wait_for(lambda: "arrivals go on being recorded" in parts.log("relay"), seconds=60, what="the relay has noticed")
    assert set(parts.states(*keys)) == {State.PENDING}
    parts.start_server()
    wait_for(lambda: set(parts.states(*keys)) == {State.LOADED}, seconds=90, what="everything is loaded")
    assert parts.count() == 3 * 51
    assert len(parts.runs()) - before <= 3
    ledger = parts.ledger()
    try:
        wait_for(lambda: ledger.outbox.count() == 0, seconds=30, what="every event is sent")
        assert ledger.wakeups.outstanding() == []
    finally:
        ledger.close()


@pytest.mark.slow
@pytest.mark.long
def test_without_a_worker_one_run_waits(parts: PrefectParts) -> None:
    """While no worker is there the wake-up becomes one run and no second; `status` says what is missing."""
    before = {run["id"] for run in parts.runs()}

    def new_runs() -> list[str]:
        return [run["id"] for run in parts.runs() if run["id"] not in before]

    parts.arrive("sales/waits.csv")
    ledger = parts.ledger()
    try:

        def explained() -> bool:
            notes = [wakeup.note or "" for wakeup in ledger.wakeups.outstanding()]
            return any("a run waits for a worker" in note for note in notes)

        wait_for(explained, seconds=60, what="the relay says what the wake-up waits for")
        runs = new_runs()
        assert len(runs) == 1, parts.log("relay")
        # Two more times at which it would have been sent again.
        due = [ledger_due(parts)]

        def looked_again() -> bool:
            if ledger_due(parts) != due[-1]:
                due.append(ledger_due(parts))
            return len(due) == 3

        wait_for(looked_again, seconds=90, what="the relay has looked twice more")
        assert new_runs() == runs
    finally:
        ledger.close()
    parts.start_worker()
    # On a busy machine another may follow, for a run that is taken no longer waits.
    parts.becomes(UUID(runs[0]), "COMPLETED")
    wait_for(lambda: parts.states("sales/waits.csv") == [State.LOADED], what="it is loaded")


def ledger_due(parts: PrefectParts) -> str:
    """When the wake-up is due, as the ledger's database has it."""
    ledger = parts.ledger()
    try:
        with ledger.database.read() as connection:
            return str(connection.exec_driver_sql("SELECT due_at FROM wakeups").scalar_one())
    finally:
        ledger.close()
