"""The processes of a running penstock by what they are, read from /proc."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.soak.plan import Who

# What a command line holds; the fork server and its forks have the same one and differ by their parent.
_SIGNS: tuple[tuple[Who, str], ...] = (
    ("minio", " server --quiet "),
    ("prefect", "penstock.cli.prefect_app"),
    ("worker", "penstock.worker.main"),
    ("sensors", "penstock.cli --project"),
    ("serve", "penstock.cli --project"),
    ("relay", "penstock.cli --project"),
)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that lives."""

    pid: int
    parent: int
    command: str
    started: float

    def kill(self) -> bool:
        """Send it SIGKILL; False when it was gone."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def find(folder: Path) -> dict[Who, list[Process]]:
    """Every process whose command or environment names the folder, by what it is."""
    all_of_it = [found for entry in Path("/proc").iterdir() if (found := _read(entry, folder)) is not None]
    named: dict[Who, list[Process]] = {}
    for process in all_of_it:
        for who, sign in _SIGNS:
            own_name = sign != "penstock.cli --project" or process.command.endswith(f" {who}")
            if sign in process.command and own_name:
                named.setdefault(who, []).append(process)
    workers = {process.pid for process in named.get("worker", [])}
    servers = [
        process for process in all_of_it if "forkserver import main" in process.command and process.parent in workers
    ]
    if servers:
        named["forkserver"] = servers
    forks = {process.pid for process in servers}
    if runs := [process for process in all_of_it if process.parent in forks]:
        named["run"] = runs
    return named


def age(process: Process) -> float:
    """Seconds since it began."""
    return float(Path("/proc/uptime").read_text().split()[0]) - process.started


def _read(entry: Path, folder: Path) -> Process | None:
    if not entry.name.isdigit():
        return None
    try:
        environment = (entry / "environ").read_bytes()
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        numbers = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    state, parent, started = numbers[0], int(numbers[1]), int(numbers[19]) / os.sysconf("SC_CLK_TCK")
    if state == "Z" or str(folder).encode() not in environment + command.encode():
        return None
    return Process(pid=int(entry.name), parent=parent, command=command, started=started)
