"""Every seam between accepted and loaded, with a kill, an exception and a hang at it: each row is there exactly once.

One `penstock up` for each pair of ledger and warehouse serves all cases; what a fault ends, `up` starts again. The
cases take turns among the parts, so that none is restarted so often that the supervisor makes it wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from penstock import faults
from tests.acceptance.pipe import WITHIN_SECONDS, Pipe, running
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

SETTINGS = {"PENSTOCK_LEASE_SECONDS": "3", "PENSTOCK_WAKEUP_SECONDS": "1", "PENSTOCK_STALL_SECONDS": "5"}


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Faults that can be laid into the way of a running project."""

    folder: Path

    def lay(self, seam: str, what: str) -> None:
        """Have the next process that passes this seam do so."""
        self.folder.joinpath(seam + ".hit").unlink(missing_ok=True)
        waiting = self.folder / (seam + ".new")
        waiting.write_text(what)
        waiting.rename(self.folder / seam)

    def was_hit(self, seam: str) -> bool:
        """Whether a process did."""
        return (self.folder / (seam + ".hit")).exists()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """A folder for the faults, that the processes of every project look into."""
    return Faults(folder=tmp_path_factory.mktemp("faults"))


@pytest.fixture(
    scope="module",
    params=[
        "sqlite and DuckDB",
        pytest.param("PostgreSQL", marks=pytest.mark.long),
    ],
)
def pipe(request: pytest.FixtureRequest, faulty: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipe]:
    """A project that is up."""
    with ExitStack() as stack:
        extra = {**SETTINGS, "PENSTOCK_FAULTS": str(faulty.folder)}
        if request.param == "PostgreSQL":
            from tests.real_postgres import real_postgres

            server = stack.enter_context(real_postgres())
            extra |= {"PENSTOCK_LEDGER_URL": server.ledger_url(), "PENSTOCK_WAREHOUSE_URL": server.warehouse_url()}
        yield stack.enter_context(running(tmp_path_factory.mktemp("seams") / "project", settings=extra))


def _cases() -> list[tuple[str, str]]:
    by_part: dict[str, list[tuple[str, str]]] = {}
    for what in ("kill", "raise", "hang"):
        for seam in faults.SEAMS:
            part = "webhook" if "envelope" in seam else seam.split(".")[0]
            by_part.setdefault(part, []).append((seam, what))
    return [case for turn in zip_longest(*by_part.values()) for case in turn if case is not None]


@pytest.mark.parametrize(
    ("seam", "what"),
    [pytest.param(*case, marks=[] if case[1] == "kill" else [pytest.mark.long]) for case in _cases()],
)
def test_a_fault_costs_time_only(pipe: Pipe, faulty: Faults, seam: str, what: str) -> None:
    """Whatever happens at a seam, each row is in the warehouse once, and what comes after goes through as ever."""
    faulty.lay(seam, what)
    ids: list[int] = []

    def passed() -> bool:
        if faulty.was_hit(seam):
            return True
        # A run that was still at work may have taken the last one along, without a wake-up and a lease of its own.
        if not ids or (pipe.is_quiet() and set(pipe.loaded(ids)) == set(ids)):
            more = pipe.ids(1 if "envelope" in seam else 3)
            ids.extend(more)
            if "envelope" in seam:
                pipe.post(more[0])
            else:
                pipe.drop(more)
        return False

    wait_for(passed, seconds=WITHIN_SECONDS, what=f"{seam} is passed")
    wait_for(lambda: set(pipe.loaded(ids)) == set(ids), seconds=WITHIN_SECONDS, what=f"{ids} are loaded after {what}")
    after = pipe.ids(1)
    pipe.drop(after)
    wait_for(
        lambda: pipe.is_quiet() and pipe.loaded(after) == after, seconds=WITHIN_SECONDS, what="the next file is loaded"
    )
    assert pipe.loaded(ids) == ids
