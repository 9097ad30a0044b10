"""The processes of a project, by what they are, with what they cost: read from /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MB = 1_000_000
# What a command line holds. The fork server and its forks have the same one, and differ by their parent.
_SIGNS = (
    ("object store", " server --quiet "),
    ("prefect", "penstock.cli.prefect_app"),
    ("worker", "penstock.worker.main"),
)
_PARTS = ("up", "sensors", "serve", "relay")
OWN = ("up", "sensors", "serve", "relay", "worker", "fork server", "run", "other")
WORKER = ("worker", "fork server", "run")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that lives."""

    pid: int
    parent: int
    command: str


def find(folder: Path) -> dict[int, str]:
    """What each process is whose command line or environment names the folder."""
    found = [process for entry in Path("/proc").iterdir() if (process := _read(entry, folder)) is not None]
    kinds = {process.pid: _kind(process.command) for process in found}
    workers = {pid for pid, kind in kinds.items() if kind == "worker"}
    servers = {p.pid for p in found if p.parent in workers and "forkserver import main" in p.command}
    for process in found:
        if process.pid in servers:
            kinds[process.pid] = "fork server"
        elif process.parent in servers:
            kinds[process.pid] = "run"
    return kinds


def _kind(command: str) -> str:
    for kind, sign in _SIGNS:
        if sign in command:
            return kind
    last = command.rpartition(" ")[2]
    return last if "penstock.cli --project" in command and last in _PARTS else "other"


def _read(entry: Path, folder: Path) -> Process | None:
    if not entry.name.isdigit() or int(entry.name) == os.getpid():
        return None
    try:
        environment = (entry / "environ").read_bytes()
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        numbers = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if numbers[0] == "Z" or str(folder).encode() not in environment + command.encode():
        return None
    return Process(pid=int(entry.name), parent=int(numbers[1]), command=command)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, user and system; 0 when it is gone. Its dead children's are not in it."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / _TICKS


def memory(pid: int) -> dict[str, float]:
    """Megabytes of a process: `peak` (resident, the most so far), `resident`, `anonymous`; nothing when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    names = {"peak": "VmHWM", "resident": "VmRSS", "anonymous": "RssAnon"}
    return {name: int(sizes[key]) * 1024 / _MB for name, key in names.items() if key in sizes}


@dataclass(kw_only=True)
class Peaks:
    """The most memory, in MB, that each kind of process was seen with.

    `together` is the most that all of the worker's held at once by PSS, in which shared pages count once.
    """

    resident: dict[str, float] = field(default_factory=dict)
    anonymous: dict[str, float] = field(default_factory=dict)
    together: float = 0.0

    def see(self, kinds: dict[int, str]) -> None:
        """Look once at these processes."""
        shared = 0.0
        for pid, kind in kinds.items():
            found = memory(pid)
            self.resident[kind] = max(self.resident.get(kind, 0.0), found.get("resident", 0.0))
            self.anonymous[kind] = max(self.anonymous.get(kind, 0.0), found.get("anonymous", 0.0))
            if kind in WORKER:
                shared += _pss(pid)
        self.together = max(self.together, shared)

    @property
    def worker(self) -> float:
        """The most of any process of the worker's, or of all together: whichever is more."""
        return max([self.together, *(self.resident.get(kind, 0.0) for kind in WORKER)])

    @property
    def worker_anonymous(self) -> float:
        """The most of any process of the worker's that no file backs."""
        return max(self.anonymous.get(kind, 0.0) for kind in WORKER)


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / _MB for line in lines if line.startswith("Pss:")), 0.0)


@contextmanager
def watched(folder: Path, *, every: float = 0.2) -> Iterator[Peaks]:
    """Look at the memory of a project's processes every so often, until the block ends."""
    peaks, stop = Peaks(), threading.Event()

    def look() -> None:
        while True:
            peaks.see(find(folder))
            if stop.wait(every):
                return

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()
