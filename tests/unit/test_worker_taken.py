"""What a worker remembers of its runs, and what is made of the runs of a dead one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State, StateType

from penstock.worker.settle import LONGEST_PENDING, is_too_early, state_of_cancelled, state_of_dead
from penstock.worker.taken import Process, Taken, TakenRuns, process

RUN = uuid4()
GONE = Taken(run=RUN, by=Process(pid=7, born=1, boot="b"))
CLAIMED = Taken(run=RUN, by=None)
UNSURE = Taken(run=RUN, by=None, unsure=True)

# Takes a run, says so, and waits to be killed.
_TAKES = """
import sys, os
from pathlib import Path
from uuid import UUID
from penstock.worker.taken import TakenRuns
taken = TakenRuns(Path(sys.argv[1]))
taken.take(UUID(sys.argv[2]))
taken.started(UUID(sys.argv[2]), os.getpid())
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another worker: a process that has taken RUN and lives."""
    child = subprocess.Popen(
        [sys.executable, "-c", _TAKES, str(tmp_path), str(RUN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert child.stdout.readline() == "taken\n"
        yield child
    finally:
        child.kill()
        child.wait(30)
        child.stdout.close()
        child.stdin.close()


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[TakenRuns]:
    taken = TakenRuns(tmp_path)
    try:
        yield taken
    finally:
        taken.close()


class TestProcess:
    """Whether a process lives still."""

    def test_this_one_lives(self) -> None:
        """A process that runs is the one it was."""
        me = process(os.getpid())
        assert me is not None
        assert me.lives()

    def test_another_with_the_same_id_is_not_it(self) -> None:
        """A pid that was given to a later process, or that another boot had, does not count."""
        me = process(os.getpid())
        assert me is not None
        assert not replace(me, born=me.born - 1).lives()
        assert not replace(me, boot="another").lives()

    def test_a_zombie_is_gone(self) -> None:
        """A process that has ended is gone, though nobody has asked for its exit code."""
        child = subprocess.Popen([sys.executable, "-c", ""])
        try:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert process(child.pid) is None
        finally:
            child.wait(30)


class TestTaken:
    """The files."""

    def test_a_living_workers_runs_are_its_own(self, mine: TakenRuns, other: subprocess.Popen[str]) -> None:
        """While the worker that took a run lives, nobody adopts it."""
        assert mine.adopt() == 0
        assert mine.remembered() == []
        assert mine.elsewhere(RUN)

    def test_a_killed_workers_runs_are_adopted_once(
        self, tmp_path: Path, mine: TakenRuns, other: subprocess.Popen[str]
    ) -> None:
        """After kill -9 one worker gets what the dead one had, with its process; the folder is gone."""
        pid = other.pid
        other.kill()
        other.wait(30)
        second = TakenRuns(tmp_path)
        try:
            assert (mine.adopt(), second.adopt()) == (1, 0)
            assert second.elsewhere(RUN)
        finally:
            second.close()
        (found,) = mine.remembered()
        assert found.run == RUN
        assert found.by is not None
        assert found.by.pid == pid
        assert not found.by.lives()
        assert len(list(tmp_path.iterdir())) == 1

    def test_what_was_taken_again_is_not_adopted(self, mine: TakenRuns, other: subprocess.Popen[str]) -> None:
        """A run that this worker has claimed meanwhile is under way here, whatever the dead one knew of it."""
        other.kill()
        other.wait(30)
        mine.take(RUN)
        mine.started(RUN, os.getpid())
        assert mine.adopt() == 0
        (found,) = mine.remembered()
        assert found.by == process(os.getpid())

    def test_an_empty_file_tells_the_run_still(self, tmp_path: Path, mine: TakenRuns) -> None:
        """What a full disk left of a file is as good as a run that had not begun."""
        mine.take(RUN)
        mine.started(RUN, os.getpid())
        (file,) = tmp_path.glob(f"*/{RUN}.json")
        file.write_text('{"pid":')
        assert mine.remembered() == [CLAIMED]

    @pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b'{"pid": "x"}'])
    def test_whatever_a_file_holds_it_tells_the_run(self, tmp_path: Path, mine: TakenRuns, content: bytes) -> None:
        """No content of a file keeps the worker from looking at its run, and at the others."""
        mine.take(RUN)
        (file,) = tmp_path.glob(f"*/{RUN}.json")
        file.write_bytes(content)
        assert mine.remembered() == [CLAIMED]

    def test_a_claim_without_an_answer_is_remembered_as_such(self, mine: TakenRuns) -> None:
        """That nobody knows who claimed the run is kept, until it is claimed again."""
        mine.take(RUN)
        mine.unsure(RUN)
        assert mine.remembered() == [UNSURE]
        mine.take(RUN)
        assert mine.remembered() == [CLAIMED]

    def test_what_cannot_be_marked_is_forgotten(
        self, tmp_path: Path, mine: TakenRuns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a full disk a run that may be another worker's is left alone for good."""
        mine.take(RUN)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "no space left")

        monkeypatch.setattr(mine, "_write", full)
        with pytest.raises(OSError, match="no space"):
            mine.unsure(RUN)
        assert mine.remembered() == []

    def test_one_folder_that_cannot_be_read_hides_no_other(
        self,
        tmp_path: Path,
        mine: TakenRuns,
        other: subprocess.Popen[str],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Another user's folder is named in one warning, however often it is met; what else died is adopted."""
        foreign = tmp_path / "0"
        foreign.mkdir()
        (foreign / f"{RUN}.json").touch()
        other.kill()
        other.wait(30)
        real = os.open

        def denied(path: Any, *rest: int, **where: Any) -> int:
            if foreign in Path(path).parents:
                raise PermissionError(errno.EACCES, "denied", str(path))
            return real(path, *rest, **where)

        monkeypatch.setattr("penstock.worker.taken.os.open", denied)
        assert [mine.adopt() for _ in range(3)] == [1, 0, 0]
        assert not mine.elsewhere(RUN)
        assert [run.run for run in mine.remembered()] == [RUN]
        assert len([record for record in caplog.records if str(foreign) in record.message]) == 1

    def test_what_a_start_cut_short_left_is_removed(self, tmp_path: Path) -> None:
        """A folder of a worker that was killed in its first moment goes; one of a worker that starts now stays."""
        dead, starting = tmp_path / "new-1", tmp_path / "new-2"
        for folder in (dead, starting):
            folder.mkdir()
            (folder / "lock").touch()
        (tmp_path / "new-3").mkdir()
        with (starting / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = TakenRuns(tmp_path)
            taken.close()
        assert [path.name for path in tmp_path.iterdir()] == ["new-2"]

    @pytest.mark.parametrize("at", ["lock", "flock", "rename"])
    def test_two_that_start_at_once_both_start(self, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker whose unfinished folder another takes for a dead one's makes itself a new one."""
        done: list[Path] = []

        def steal() -> None:
            if not done:
                (folder,) = tmp_path.glob("new-*")
                done.append(folder)
                shutil.rmtree(folder)

        real_open, real_flock, real_rename = os.open, fcntl.flock, Path.rename

        def opens(path: Any, *rest: int, **where: Any) -> int:
            if at == "lock" and Path(path).name == "lock":
                steal()
            return real_open(path, *rest, **where)

        def locks(descriptor: int, how: int) -> None:
            if at == "flock" and not done:
                done.append(tmp_path)
                raise BlockingIOError
            real_flock(descriptor, how)

        def renames(path: Path, target: Path) -> Path:
            if at == "rename":
                steal()
            return real_rename(path, target)

        monkeypatch.setattr("penstock.worker.taken.os.open", opens)
        monkeypatch.setattr("penstock.worker.taken.fcntl.flock", locks)
        monkeypatch.setattr(Path, "rename", renames)
        taken = TakenRuns(tmp_path)
        taken.take(RUN)
        taken.close()
        assert len(done) == 1
        assert [path.name for path in tmp_path.glob("*/*.json")] == [f"{RUN}.json"]

    def test_nothing_is_left_when_there_is_nothing_to_remember(self, tmp_path: Path) -> None:
        """A worker that ends without runs removes its folder; one with runs leaves them to the next."""
        idle, busy = TakenRuns(tmp_path), TakenRuns(tmp_path)
        busy.take(RUN)
        idle.take(RUN)
        idle.forget(RUN)
        idle.close()
        busy.close()
        assert [path.name for path in tmp_path.glob("*/*.json")] == [f"{RUN}.json"]


class TestSettle:
    """What becomes of a run without a process."""

    @pytest.mark.parametrize(
        "there", [None, *(kind for kind in StateType if kind.name not in "PENDING RUNNING CANCELLING")]
    )
    def test_what_needs_nothing_gets_nothing(self, there: StateType | None) -> None:
        """A run that was deleted, has ended, is paused, or waits for a worker again, stays as it is."""
        state: State[object] | None = None if there is None else State(type=there)
        assert state_of_dead(state, GONE) is None
        assert state_of_dead(state, CLAIMED) is None
        assert state_of_dead(state, UNSURE) is None

    @pytest.mark.parametrize(
        ("there", "taken", "becomes", "says"),
        [
            (StateType.RUNNING, GONE, StateType.CRASHED, "process 7 is gone"),
            (StateType.PENDING, GONE, StateType.CRASHED, "process 7 is gone"),
            (StateType.RUNNING, GONE, StateType.CRASHED, "it may have finished; see penstock status"),
            (StateType.RUNNING, CLAIMED, StateType.CRASHED, "it may have finished; see penstock status"),
            (StateType.PENDING, UNSURE, StateType.CRASHED, "the answer was lost"),
            (StateType.PENDING, CLAIMED, StateType.CRASHED, "before it began"),
            (StateType.CANCELLING, GONE, StateType.CANCELLED, "gone"),
            (StateType.CANCELLING, CLAIMED, StateType.CANCELLED, "gone"),
        ],
    )
    def test_what_died_is_said_to_have(self, there: StateType, taken: Taken, becomes: StateType, says: str) -> None:
        """What died is Crashed, or Cancelled where that was asked for, and the message says what happened."""
        state = state_of_dead(State(type=there), taken)
        assert state is not None
        assert state.type == becomes
        assert says in (state.message or "")

    @pytest.mark.parametrize("there", [StateType.RUNNING, StateType.CANCELLING])
    def test_a_run_that_was_certainly_never_begun_here_is_somebody_elses(self, there: StateType) -> None:
        """Where the answer to the claim was lost, what runs now was claimed by another."""
        assert state_of_dead(State(type=there), UNSURE) is None

    def test_a_claim_without_an_answer_is_left_alone_for_minutes(self) -> None:
        """Until another worker would certainly have begun it, a pending run may be about to begin there."""
        now = datetime.now(UTC)
        young = State[object](type=StateType.PENDING, timestamp=now - LONGEST_PENDING + timedelta(seconds=1))
        old = State[object](type=StateType.PENDING, timestamp=now - LONGEST_PENDING)
        assert is_too_early(young, UNSURE, now)
        assert not is_too_early(old, UNSURE, now)
        assert not is_too_early(young, CLAIMED, now)
        assert not is_too_early(State(type=StateType.RUNNING), UNSURE, now)
        assert not is_too_early(None, UNSURE, now)

    @pytest.mark.parametrize("kind", [StateType.CANCELLED, StateType.COMPLETED, StateType.FAILED])
    def test_a_cancelled_run_that_reported_its_end_keeps_it(self, kind: StateType) -> None:
        """A run that was done before the signal came has ended as it says."""
        assert state_of_cancelled(State(type=kind)) is None

    @pytest.mark.parametrize("kind", [StateType.CANCELLING, StateType.CRASHED, StateType.RUNNING])
    def test_a_cancelled_run_that_did_not_is_cancelled(self, kind: StateType) -> None:
        """A killed one, or one whose engine took the signal for a crash, was cancelled."""
        state = state_of_cancelled(State(type=kind))
        assert state is not None
        assert state.type is StateType.CANCELLED
