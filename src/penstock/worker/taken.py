"""The runs that a worker has taken, remembered in files: what dies with it is found by whoever works here next.

Each worker has a folder of its own and holds a lock in it for as long as it lives; the kernel lets go of it when the
worker dies, however it dies. A file is named after its flow run and says which process runs it, so that even an empty
one (a full disk, a power cut) tells which run was taken.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

log = logging.getLogger(__name__)

_LOCK = "lock"
# The name of a folder whose lock is not held yet.
_UNFINISHED = "new-"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process, and no later one with the same id: `born` counts clock ticks since the boot `boot`."""

    pid: int
    born: int
    boot: str

    def lives(self) -> bool:
        """Whether it runs still. One that has ended but was not reaped is gone."""
        return process(self.pid) == self


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A run that was claimed; `by` is None while it has no process yet."""

    run: UUID
    by: Process | None


class TakenRuns:
    """What this worker has taken, and what workers that are dead had."""

    def __init__(self, folder: Path) -> None:
        name = uuid4().hex
        draft = folder / f"{_UNFINISHED}{name}"
        draft.mkdir(parents=True, mode=0o700)
        # It gets its name with its lock held: nobody may take it for a dead worker's.
        self._lock = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._all = folder
        self._own = draft.rename(folder / name)

    def take(self, run: UUID) -> None:
        """Remember a run before it is claimed."""
        with self._file(run).open("w") as file:
            os.fsync(file.fileno())

    def started(self, run: UUID, pid: int) -> None:
        """Remember its process, too."""
        found = process(pid)
        if found is None:
            return  # ended already: as good as none
        draft = self._own / f"{run}.new"
        draft.write_text(json.dumps(vars(found)))
        draft.replace(self._file(run))

    def forget(self, run: UUID) -> None:
        """The server knows how the run ended."""
        self._file(run).unlink(missing_ok=True)

    def remembered(self) -> list[Taken]:
        """The runs in this worker's own folder."""
        return [Taken(run=run, by=_read(self._file(run))) for run in sorted(_runs(self._own), key=str)]

    def adopt(self) -> int:
        """Take over what dead workers remembered; returns how many runs."""
        adopted = 0
        for folder in self._others():
            lock = _locked(folder)
            if lock is None:
                continue
            try:
                for run in _runs(folder):
                    there = folder / f"{run}.json"
                    # One that was claimed again is under way here.
                    if not self._file(run).exists():
                        there.rename(self._file(run))
                        adopted += 1
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
        return adopted

    def elsewhere(self, run: UUID) -> bool:
        """Whether another worker that lives has taken the run."""
        for folder in self._others():
            if (folder / f"{run}.json").exists():
                lock = _locked(folder)
                if lock is None:
                    return True
                os.close(lock)
        return False

    def close(self) -> None:
        """Let go; the folder goes too when there is nothing left to remember."""
        if not _runs(self._own):
            shutil.rmtree(self._own, ignore_errors=True)
        os.close(self._lock)

    def _others(self) -> list[Path]:
        return sorted(
            folder
            for folder in self._all.iterdir()
            if folder != self._own and folder.is_dir() and not folder.name.startswith(_UNFINISHED)
        )

    def _file(self, run: UUID) -> Path:
        return self._own / f"{run}.json"


def process(pid: int) -> Process | None:
    """The process with this id, if one runs."""
    try:
        # The second field is the command in brackets, which may hold anything; the state follows it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Process(pid=pid, born=int(fields[19]), boot=boot)


def _read(path: Path) -> Process | None:
    try:
        found = json.loads(path.read_text())
        return Process(pid=int(found["pid"]), born=int(found["born"]), boot=str(found["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _runs(folder: Path) -> list[UUID]:
    found = []
    for path in folder.glob("*.json"):
        try:
            found.append(UUID(path.stem))
        except ValueError:
            log.warning("%s is no run's file and is ignored", path)
    return found


def _locked(folder: Path) -> int | None:
    """The lock of a dead worker's folder, to be closed; None while its owner lives."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None  # adopted by another a moment ago
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
