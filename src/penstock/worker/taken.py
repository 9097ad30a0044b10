"""The runs that a worker has taken, remembered in files: what dies with it is found by whoever works here next.

Each worker has a folder of its own and holds a lock in it for as long as it lives; the kernel lets go of it when the
worker dies, however it dies. A file is named after its flow run and says which process runs it, so that even an empty
one (a full disk, a power cut, a system without /proc) tells which run was taken.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Mapping
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
    """A run that was claimed; `by` is None while no process of it is known.

    `unsure`: the answer to the claim was lost. It was never begun here, and another worker may have claimed it.
    """

    run: UUID
    by: Process | None
    unsure: bool = False


class TakenRuns:
    """What this worker has taken, and what workers that are dead had."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._all = folder
        # The folders that could not be read: each is told of once.
        self._unread: set[Path] = set()
        for left in folder.glob(f"{_UNFINISHED}*"):
            self._remove_unfinished(left)
        made = _made(folder)
        while made is None:
            made = _made(folder)
        self._own, self._lock = made

    def take(self, run: UUID) -> None:
        """Remember a run before it is claimed."""
        self._file(run).write_bytes(b"")
        _to_disk(self._file(run))
        _to_disk(self._own)

    def unsure(self, run: UUID) -> None:
        """Remember that the answer to its claim was lost."""
        try:
            self._write(run, {"unsure": True})
        except OSError:
            # Better not looked after at all than taken from a worker that has it.
            self.forget(run)
            raise

    def started(self, run: UUID, pid: int) -> None:
        """Remember its process, too."""
        found = process(pid)
        if found is None:
            return  # ended already: as good as none
        self._write(run, vars(found))

    def forget(self, run: UUID) -> None:
        """The server knows how the run ended."""
        self._file(run).unlink(missing_ok=True)

    def remembered(self) -> list[Taken]:
        """The runs in this worker's own folder."""
        found = []
        for run in sorted(_runs(self._own), key=str):
            try:
                found.append(_read(self._file(run)))
            except OSError as error:
                # Not known to be dead: it is looked at again.
                self._unreadable(self._file(run), error)
        return found

    def adopt(self) -> int:
        """Take over what dead workers remembered; returns how many runs."""
        adopted = 0
        for folder in self._others():
            try:
                adopted += self._adopt(folder)
                self._unread.discard(folder)
            except OSError as error:
                self._unreadable(folder, error)
        return adopted

    def elsewhere(self, run: UUID) -> bool:
        """Whether another worker that lives has taken the run. What cannot be read is passed over."""
        for folder in self._others():
            try:
                if not (folder / f"{run}.json").exists():
                    continue
                lock = _locked(folder)
            except OSError as error:
                self._unreadable(folder, error)
                continue
            if lock is None:
                return True
            os.close(lock)
        return False

    def close(self) -> None:
        """Let go; the folder goes too when there is nothing left to remember."""
        if not _runs(self._own):
            shutil.rmtree(self._own, ignore_errors=True)
        os.close(self._lock)

    def _adopt(self, folder: Path) -> int:
        lock = _locked(folder)
        if lock is None:
            return 0
        adopted = 0
        try:
            for run in _runs(folder):
                # One that was claimed again is under way here.
                if not self._file(run).exists():
                    (folder / f"{run}.json").rename(self._file(run))
                    adopted += 1
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
        return adopted

    def _remove_unfinished(self, folder: Path) -> None:
        try:
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
        except OSError as error:
            self._unreadable(folder, error)

    def _unreadable(self, path: Path, error: OSError) -> None:
        if path not in self._unread:
            self._unread.add(path)
            log.warning("%s is passed over: %s; remove it if no worker uses it", path, error)

    def _write(self, run: UUID, facts: Mapping[str, object]) -> None:
        draft = self._own / f"{run}.new"
        draft.write_text(json.dumps(facts))
        _to_disk(draft)
        draft.replace(self._file(run))
        _to_disk(self._own)

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


def _read(path: Path) -> Taken:
    run = UUID(path.stem)
    try:
        found = json.loads(path.read_bytes())
        if found.get("unsure"):
            return Taken(run=run, by=None, unsure=True)
        by = Process(pid=int(found["pid"]), born=int(found["born"]), boot=str(found["boot"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Taken(run=run, by=None)
    return Taken(run=run, by=by)


def _made(folder: Path) -> tuple[Path, int] | None:
    """A new worker's folder and its lock; None when another worker that starts now took it for a dead one's."""
    name = uuid4().hex
    draft = folder / f"{_UNFINISHED}{name}"
    draft.mkdir(mode=0o700)
    try:
        lock = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It gets its name with its lock held: nobody may take it for a dead worker's.
        return draft.rename(folder / name), lock
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        return None


def _to_disk(path: Path) -> None:
    """See to it that a power cut does not undo what was written to a file, or which names a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
