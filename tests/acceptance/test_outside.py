"""Faults from outside: what a machine does to a running penstock. Each costs time only.

One `penstock up` on MinIO serves all cases. Spool, warehouse and a second inbox lie on small file systems of their own
where those can be mounted, so that a disk can be filled and an inbox be read-only.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.pipe import WITHIN_SECONDS, Pipe, csv, running
from tests.soak.plan import Who
from tests.soak.processes import find
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long]

STORE_STOPPED_SECONDS = 20.0
WAREHOUSE_HELD_SECONDS = 15.0
BURST = 200
# More than the kernel's queue takes, which is 16,384 events by default: a new file makes four.
OVERFLOW = 10_000
OVERFLOW_SECONDS = 600.0
HALF_WRITTEN = 1_000

READ_ONLY = """
from penstock import Folder

SENSOR = Folder(path="shelf", after="keep")
"""

# Holds the file until its standard input ends.
HOLDER = """
import sys, duckdb
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
# Three rows for each file, the third cut off after its id. On a line of input it completes those of the first half.
WRITER = """
import resource, sys
folder, first, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (files + 100, files + 100))
open_files = []
for number in range(first, first + 3 * files, 3):
    file = open(f"{folder}/{number}.csv", "w")
    file.write(f"id,name\\n{number},n{number}\\n{number + 1},n{number + 1}\\n{number + 2}")
    file.flush()
    open_files.append((number, file))
print("half", flush=True)
sys.stdin.readline()
for number, file in open_files[: files // 2]:
    file.write(f",n{number + 2}\\n")
    file.close()
print("done", flush=True)
sys.stdin.read()
"""


@contextmanager
def mounted(kind: Sequence[str], target: Path) -> Iterator[None]:
    """A file system at `target`, gone also when something still uses it. Raises OSError where none can be mounted."""
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *kind, str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


class Mounts:
    """The file systems of the project; `missing` says why there are none."""

    missing = ""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.spool = folder / ".penstock" / "spool"
        self.warehouse = folder / "warehouse"
        self.shelf = folder / "shelf"
        self.behind_shelf = folder / "behind"
        try:
            # Room for a batch of a thousand tiny files, each of which takes a page.
            stack.enter_context(mounted(["-t", "tmpfs", "-o", "size=8m", "none"], self.spool))
            stack.enter_context(mounted(["-t", "tmpfs", "-o", "size=8m", "none"], self.warehouse))
            self.behind_shelf.joinpath("pipe").mkdir(parents=True)
            stack.enter_context(mounted(["--bind", str(self.behind_shelf)], self.shelf))
            subprocess.run(["mount", "-o", "remount,bind,ro", str(self.shelf)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.missing = f"no file system can be mounted here: {error}"

    def needed(self) -> None:
        """Skip where there are none."""
        if self.missing:
            pytest.skip(self.missing)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipe, Mounts]]:
    """A project that is up, and what lies below it."""
    folder = tmp_path_factory.mktemp("outside") / "project"
    settings = {
        "PENSTOCK_LEASE_SECONDS": "5",
        "PENSTOCK_WAKEUP_SECONDS": "1",
        "PENSTOCK_WAREHOUSE": str(folder / "warehouse" / "warehouse.duckdb"),
    }
    with ExitStack() as stack:
        mounts = Mounts(folder, stack)
        pipe = stack.enter_context(running(folder, settings=settings, files={"sensors/shelf.py": READ_ONLY}))
        yield pipe, mounts


@pytest.fixture
def pipe(machine: tuple[Pipe, Mounts]) -> Pipe:
    return machine[0]


@pytest.fixture
def mounts(machine: tuple[Pipe, Mounts]) -> Mounts:
    machine[1].needed()
    return machine[1]


def pid_of(pipe: Pipe, who: Who) -> int:
    """The process of one part."""
    (process,) = find(pipe.up.folder)[who]
    return process.pid


def last_for(seconds: float) -> None:
    """Let a fault last: its length is the case, and nothing that happens ends it."""
    ends = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= ends, seconds=seconds + 5)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does not run, and goes on afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def child(program: str, *arguments: str, says: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that has said that it is ready, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline().strip() == says
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def now_and_then(found: Callable[[], bool], *, every: float = 0.5) -> Callable[[], bool]:
    """A condition that is looked at so seldom that the looking takes no time from what is waited for."""
    due = 0.0

    def look() -> bool:
        nonlocal due
        if time.monotonic() < due:
            return False
        answer = found()
        due = time.monotonic() + every
        return answer

    return look


def drop_each(pipe: Pipe, ids: list[int]) -> None:
    """A file for each id."""
    for number in ids:
        pipe.drop([number])


def ends_with(pipe: Pipe, ids: list[int], *, seconds: float = 2 * WITHIN_SECONDS) -> None:
    """Each id is in the table exactly once, nothing went to quarantine, and the next file goes through."""
    wait_for(
        lambda: pipe.is_quiet() and set(pipe.loaded(ids)) == set(ids), seconds=seconds, what=f"{len(ids)} are loaded"
    )
    after = pipe.ids(1)
    pipe.drop(after)
    wait_for(lambda: pipe.is_quiet() and pipe.loaded(after) == after, seconds=seconds, what="the next file is loaded")
    assert pipe.loaded(ids) == ids
    assert "quarantined" not in pipe.counts()


def log_of(pipe: Pipe) -> Callable[[], str]:
    """What all processes log from now on."""
    logs = pipe.up.home / "logs"
    before = {path: path.stat().st_size for path in logs.glob("*.log")}

    def said() -> str:
        return "\n".join(path.read_bytes()[before.get(path, 0) :].decode() for path in sorted(logs.glob("*.log")))

    return said


@pytest.mark.parametrize("seconds", [pytest.param(1.0, marks=pytest.mark.long), 0.0])
def test_prefects_server_is_killed_after_a_burst(pipe: Pipe, seconds: float) -> None:
    """Its server killed a moment after 50 files were dropped: it is started again, and each is loaded once."""
    server = pid_of(pipe, "prefect")
    ids = pipe.ids(50)
    drop_each(pipe, ids)
    last_for(seconds)
    os.kill(server, signal.SIGKILL)
    ends_with(pipe, ids)
    assert pid_of(pipe, "prefect") != server


def test_the_store_stands_still_in_a_burst(pipe: Pipe) -> None:
    """MinIO that answers nothing for a while, in the middle of a burst: what came before and meanwhile is loaded."""
    ids = pipe.ids(BURST)
    drop_each(pipe, ids[: BURST // 2])
    with stopped(pid_of(pipe, "minio")):
        drop_each(pipe, ids[BURST // 2 :])
        last_for(STORE_STOPPED_SECONDS)
    ends_with(pipe, ids)


def test_the_store_is_killed_in_a_burst(pipe: Pipe) -> None:
    """MinIO killed in the middle of a burst, and a delivery sent meanwhile: all of it is loaded."""
    ids = pipe.ids(BURST + 1)
    drop_each(pipe, ids[: BURST // 2])
    os.kill(pid_of(pipe, "minio"), signal.SIGKILL)
    pipe.post(ids[-1])
    drop_each(pipe, ids[BURST // 2 : -1])
    ends_with(pipe, ids)


def test_another_process_holds_the_warehouse(pipe: Pipe) -> None:
    """While another process has the DuckDB file, files wait and the log says who it is; then they are loaded."""
    said = log_of(pipe)
    with child(HOLDER, str(pipe.settings.warehouse), says="held") as holder:
        ids = pipe.ids(5)
        drop_each(pipe, ids)
        last_for(WAREHOUSE_HELD_SECONDS)
        assert f"process {holder.pid}" in said()
    ends_with(pipe, ids)


@pytest.mark.long
@pytest.mark.timeout(2 * OVERFLOW_SECONDS)
def test_more_is_created_than_the_kernel_can_tell(pipe: Pipe) -> None:
    """10,000 files created while the sensors stand still: the kernel drops events, and the ledger gets them all."""
    assert int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) < 4 * OVERFLOW, "nothing would be dropped"
    folders = [pipe.up.inbox / "pipe" / f"folder-{number}" for number in range(10)]
    for folder in folders:
        folder.mkdir()
    known = pipe.ids(len(folders))
    for folder, number in zip(folders, known, strict=True):
        folder.joinpath("known.csv").write_text(csv([number]))
    ends_with(pipe, known)
    before = sum(pipe.counts().values())
    ids = pipe.ids(OVERFLOW)
    with stopped(pid_of(pipe, "sensors")):
        for number in ids:
            folders[number % len(folders)].joinpath(f"{number}.csv").write_text(csv([number]))
    wait_for(
        now_and_then(lambda: sum(pipe.counts().values()) == before + len(ids), every=2.0),
        seconds=OVERFLOW_SECONDS,
        what="the ledger knows each of them",
    )
    ends_with(pipe, ids, seconds=OVERFLOW_SECONDS)


def test_half_written_files_wait_for_their_writer(pipe: Pipe) -> None:
    """What somebody has open for writing is not taken; a writer that is killed has closed it as far as it came."""
    folder = pipe.up.inbox / "pipe"
    ids = pipe.ids(3 * HALF_WRITTEN)
    middle = len(ids) // 2
    keys = {f"pipe/{number}.csv" for number in ids[::3]}
    with child(WRITER, str(folder), str(ids[0]), str(HALF_WRITTEN), says="half") as writer:
        sentinel = pipe.ids(1)
        pipe.drop(sentinel)
        ends_with(pipe, sentinel)
        assert pipe.loaded(ids) == []
        assert [key for key in keys if pipe.ledger.facts.stories(key)] == []
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline().strip() == "done"
    # The third row of those that were not completed has its id only: no row, and it is kept as rejected.
    whole = ids[:middle] + [number for number in ids[middle:] if (number - ids[0]) % 3 < 2]
    ends_with(pipe, whole, seconds=2 * WITHIN_SECONDS)
    assert pipe.loaded(ids) == whole
    cut = [str(number) for number in ids if number not in set(whole)]
    found = pipe.warehouse.query("SELECT raw FROM pipe__rejected ORDER BY raw::BIGINT", limit=HALF_WRITTEN)
    assert [row[0] for row in found.rows] == cut


@pytest.mark.parametrize("where", ["spool", "warehouse"])
def test_a_full_disk_is_waited_out(pipe: Pipe, mounts: Mounts, where: str) -> None:
    """With no space for the spool or the warehouse files wait, the log says why, and none is quarantined."""
    said = log_of(pipe)
    filler: Path = getattr(mounts, where) / "filler"
    ids = pipe.ids(20_000)
    with filled(filler):
        pipe.drop(ids)
        wait_for(lambda: "No space left on device" in said(), seconds=WITHIN_SECONDS, what="the log names the cause")
        wait_for(lambda: waits(pipe, ids[0]), seconds=WITHIN_SECONDS, what="the file waits")
    ends_with(pipe, ids)


@contextmanager
def filled(filler: Path) -> Iterator[None]:
    """A file system without space."""
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    try:
        yield
    finally:
        filler.unlink()


def waits(pipe: Pipe, first: int) -> bool:
    """Whether a dropped file is pending with a reason, again."""
    (story,) = pipe.ledger.facts.stories(f"pipe/{first}.csv")
    return story.state == "pending" and bool(story.reason)


def test_a_read_only_inbox_is_as_good_as_any(pipe: Pipe, mounts: Mounts) -> None:
    """Files of an inbox that cannot be written to, whose files stay there, are loaded once."""
    ids = pipe.ids(20)
    with pytest.raises(OSError, match="Read-only"):
        mounts.shelf.joinpath("pipe", "x.csv").write_text("")
    for number in ids:
        mounts.behind_shelf.joinpath("pipe", f"{number}.csv").write_text(csv([number]))
    ends_with(pipe, ids)
    assert len(list(mounts.shelf.joinpath("pipe").iterdir())) == len(ids)
