"""A whole `penstock up` in a folder of its own, for the acceptance tests; ended also when a test fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.ledger.facts import Story
from penstock.settings import load_settings
from penstock.wiring import open_ledger
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
PENSTOCK = [sys.executable, "-m", "penstock.cli"]
# On a busy machine, from the moment the file or delivery is complete; how fast it is, `make bench` measures.
WITHIN_SECONDS = 60.0


@dataclass(kw_only=True)
class Up:
    """One project folder, and the `penstock up` that runs for it."""

    folder: Path
    store: str = "minio"
    process: subprocess.Popen[bytes] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        store: str = "minio",
        only: Sequence[str] = ("flows", "sensors", "webhook", "automations"),
    ) -> Up:
        """A copy of the repo's own declarations, or of some of their folders."""
        for name in only:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        return cls(folder=folder, store=store)

    @property
    def inbox(self) -> Path:
        """The watched folder."""
        return self.folder / "inbox"

    @property
    def home(self) -> Path:
        """Where it keeps its state."""
        return self.folder / ".penstock"

    @property
    def env(self) -> dict[str, str]:
        """A clean environment: no setting of the machine's own reaches the test."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PREFECT_"))}
        return {**kept, "PENSTOCK_STORE": self.store, **self.extra}

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        log = self.folder / "up.log"
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            process = self.process = subprocess.Popen(
                [*PENSTOCK, "--project", str(self.folder), "up"], env=self.env, stdout=output, stderr=output
            )

        def ready() -> bool:
            assert process.poll() is None, f"up ended with {process.returncode}: {log.read_text()}"
            return b"Ready." in log.read_bytes()[before:]

        wait_for(ready, seconds=180, what=f"penstock up is ready; its log is {log}")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to end, as Ctrl-C does; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(40)
        finally:
            if self.process.poll() is None:
                self.process.kill()

    def run(self, *arguments: str, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a penstock command beside it."""
        done = subprocess.run(
            [*PENSTOCK, "--project", str(self.folder), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def facts(self, *arguments: str, check: bool = True) -> Any:
        """What a command prints with --json."""
        return json.loads(self.run(*arguments, "--json", check=check).stdout)

    def why(self, key: str) -> list[dict[str, Any]]:
        """What `penstock why` knows of a key, the newest generation first."""
        stories: list[dict[str, Any]] = self.facts("why", key, check=False)
        return stories

    def stories(self, key: str) -> list[Story]:
        """What `why` shows, as the ledger has it: a process for each look would slow down what is waited for."""
        ledger = open_ledger(load_settings(self.folder))
        try:
            return ledger.facts.stories(key)
        finally:
            ledger.close()

    def ends_as(self, key: str, state: str, *, seconds: float = WITHIN_SECONDS) -> dict[str, Any]:
        """Wait until the newest generation of `key` is in `state`."""

        def ended() -> bool:
            return [story.state.value for story in self.stories(key)][:1] == [state]

        wait_for(ended, seconds=seconds, what=f"{key} is {state}")
        story = self.why(key)[0]
        assert story["state"] == state
        return story

    def rows(self, table: str, key: str) -> int:
        """How many rows of `table` came from any generation of `key`."""
        sql = f"SELECT count(*) AS n FROM {table} WHERE _penstock_object LIKE 'landing/{key}@%'"
        return int(self.facts("query", sql)[0]["n"])

    def made(self) -> dict[str, str]:
        """The secrets and addresses that `up` made."""
        found: dict[str, str] = {}
        for name in ("secrets.json", "up.json"):
            found |= json.loads((self.home / name).read_text())
        return found

    def pids(self) -> dict[str, int]:
        """Every process that belongs to this folder, by what it runs."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if state != "Z" and str(self.folder).encode() in environment + command.encode():
                found[command] = int(entry.name)
        return found


def s3_put(up: Up, source: Path, key: str) -> subprocess.CompletedProcess[str]:
    """PUT a file with another S3 client than ours: rclone."""
    made = up.made()
    env = {
        **os.environ,
        "RCLONE_CONFIG": "",
        "RCLONE_S3_PROVIDER": "Minio" if up.store == "minio" else "Rclone",
        "RCLONE_S3_ENDPOINT": f"http://{made['PENSTOCK_S3_ENDPOINT']}",
        "RCLONE_S3_ACCESS_KEY_ID": made["PENSTOCK_S3_ACCESS_KEY"],
        "RCLONE_S3_SECRET_ACCESS_KEY": made["PENSTOCK_S3_SECRET_KEY"],
    }
    rclone = Path(sys.executable).parent / "rclone"
    return subprocess.run(
        [str(rclone), "copyto", "--s3-no-check-bucket", str(source), f":s3:landing/{key}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


WEATHER_HEADER = "date,precipitation,temp_max,temp_min,wind,weather\n"


def weather(days: int, *, year: int) -> str:
    """A weather file of so many days."""
    lines = [f"{year}-{1 + day // 28:02}-{1 + day % 28:02},0.{day % 10},12.8,5.0,4.7,rain\n" for day in range(days)]
    return WEATHER_HEADER + "".join(lines)
