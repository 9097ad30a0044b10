"""What a run leaves behind for people, and how the worker names and awaits a run."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from penstock.flows.batch import Report
from penstock.flows.render import as_markdown
from penstock.model import ObjectRef, Outcome, State
from penstock.worker.child import is_module_path
from penstock.worker.nursery import end, ended
from tests.waiting import wait_for


def outcome(number: int, state: State, rows: int = 0, rejected: int = 0) -> Outcome:
    ref = ObjectRef(id=number, dataset="sales", bucket="landing", key=f"sales/{number}", generation=1, etag="e", size=1)
    return Outcome(ref=ref, state=state, rows=rows, rejected=rejected, reason=None if rows else "why")


def test_a_report_adds_up_batches() -> None:
    """Counts of batches are added, rows only of what was loaded, and the figures are merged."""
    report = Report()
    report.add([outcome(1, State.LOADED, 10, 2), outcome(2, State.QUARANTINED, 0, 7)], {"total": 1.5})
    report.add([outcome(3, State.LOADED, 5)], {"total": 2.0})
    assert (report.loaded, report.rows, report.rejected) == (2, 15, 2)
    assert report.outcomes == {"loaded": 2, "quarantined": 1}
    assert report.figures == {"total": 3.5}


def test_markdown() -> None:
    """The artifact shows counts, what was not loaded, and the dataset's figures."""
    report = Report(
        loaded=2,
        rows=15,
        rejected=3,
        outcomes={"loaded": 2, "quarantined": 1, "empty": 4},
        figures={"total": 1234567.891, "by_kind": {"b": 2, "a": 1.0}},
    )
    assert as_markdown("sales", report, 0.25) == (
        "# sales\n\n"
        "| objects loaded | rows | rejected rows | seconds |\n| ---: | ---: | ---: | ---: |\n| 2 | 15 | 3 | 0.25 |\n\n"
        "| not loaded | objects |\n| --- | ---: |\n| empty | 4 |\n| quarantined | 1 |\n\nWhy: `penstock why KEY`\n\n"
        "| figure | value |\n| --- | ---: |\n| total | 1,234,567.89 |\n| by_kind | a: 1.00, b: 2 |\n"
    )


def test_markdown_of_a_plain_run() -> None:
    """Tables that would be empty are left out."""
    markdown = as_markdown("sales", Report(loaded=1, rows=2, outcomes={"loaded": 1}), 0.1)
    assert "not loaded" not in markdown
    assert "figure" not in markdown


def test_data_does_not_break_the_table() -> None:
    """A value from the data can end neither a cell nor a line."""
    markdown = as_markdown("sales", Report(figures={"by_kind": {"a|b\n# c": 1}}), 0.1)
    assert markdown.endswith("| by_kind | a\\|b # c: 1 |\n")


@pytest.mark.parametrize("entrypoint", ["penstock.flows.ingest.ingest", "flows.nightly.run", "a.b"])
def test_module_paths(entrypoint: str) -> None:
    """package.module.flow can be imported by a fork."""
    assert is_module_path(entrypoint)


@pytest.mark.parametrize(
    "entrypoint", ["flows/x.py:run", "x.py:run", "run", "", ".run", "a..b", "a.b.", "a-b.c", "a b.c", "a.b:c"]
)
def test_no_module_paths(entrypoint: str) -> None:
    """Files, bare names and what is no identifier are left to Prefect's own loader."""
    assert not is_module_path(entrypoint)


def linger(ready: str) -> None:
    Path(ready).touch()
    time.sleep(60)


def deaf(ready: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    linger(ready)


@pytest.mark.parametrize(("target", "code"), [(linger, -signal.SIGTERM), (deaf, -signal.SIGKILL)])
def test_everybody_who_waits_for_a_run_learns_of_its_end(tmp_path: Path, target: object, code: int) -> None:
    """A cancelled run ends, by force if it must, and who awaited it already is told as well."""
    ready = tmp_path / "ready"
    process = multiprocessing.get_context("spawn").Process(target=target, args=(str(ready),))  # type: ignore[arg-type]
    process.start()

    async def cancelled() -> tuple[int, int]:
        waiting = asyncio.create_task(ended(process))
        async with asyncio.timeout(20):
            await asyncio.to_thread(wait_for, ready.exists, what="the process runs")
            killed = await end(process, grace=0.2 if target is deaf else 10)
            return await waiting, killed

    try:
        assert asyncio.run(cancelled()) == (code, code)
    finally:
        process.kill()
        process.join(30)
