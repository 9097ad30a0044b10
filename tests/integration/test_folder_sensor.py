"""The folder sensor on real files, real inotify and a real store."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from penstock.declarations import Dataset, Folder
from penstock.errors import LedgerUnavailable, SettingsError
from penstock.landing import Landing
from penstock.ledger.arrivals import Arrivals, FileMark
from penstock.model import State
from penstock.objects import ObjectStore
from penstock.sensors import files, folder, taking, uploads
from penstock.sensors.folder import FolderSensor
from penstock.sensors.settle import Writer
from tests.integration.parts import MeddledStore, Parts, parts_in, running
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

NEVER = 3600.0

# watchdog 7 warns, in its own thread, when a new folder is watched by two of its ways at once; both see its files.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path, embedded: RealStore) -> Iterator[Parts]:
    """A bucket and a ledger of the test's own."""
    with parts_in(tmp_path, embedded) as made:
        yield made


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The watched folder, with the dataset's folder in it."""
    (tmp_path / "inbox" / "sales").mkdir(parents=True)
    return tmp_path / "inbox"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nobody watches, on the same file system."""
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"


def sensor_on(
    inbox: Path,
    parts: Parts,
    declared: Folder | None = None,
    *,
    store: MeddledStore | None = None,
    arrivals: Arrivals | None = None,
    writer_of: Callable[..., Writer] = files.writer_of,
    monotonic: Callable[[], float] = time.monotonic,
    roots: Sequence[Path] = (),
) -> FolderSensor:
    return FolderSensor(
        inbox,
        landing=parts.landing_with(cast(ObjectStore, store)) if store else parts.landing,
        arrivals=arrivals or parts.ledger.arrivals,
        declared=declared or Folder(),
        monotonic=monotonic,
        writer_of=writer_of,
        roots=roots,
    )


def watching(sensor: FolderSensor, parts: Parts) -> AbstractContextManager[None]:
    """Run the sensor on events alone: the only scan is the one at start, which is over when this returns."""
    first = sensor.root / "sales" / "there-before-start.csv"
    first.write_bytes(b"first")
    context = running(lambda stop: sensor.run(stop, scan_every=NEVER))

    class Watching(AbstractContextManager[None]):
        def __enter__(self) -> None:
            context.__enter__()
            wait_for(lambda: parts.states("sales/there-before-start.csv"), what="the scan at start")

        def __exit__(self, *raised: Any) -> None:
            context.__exit__(*raised)

    return Watching()


def work_off(sensor: FolderSensor) -> int:
    """Let the sensor look, without events, until nothing waits; returns how many were recorded."""
    recorded = 0

    def idle() -> bool:
        nonlocal recorded
        recorded += sensor.run_once()
        return not sensor._queue.waiting

    wait_for(idle, what="nothing waits")
    return recorded


def recorded(parts: Parts, key: str, content: bytes, generations: int = 1) -> None:
    """Wait until the key is recorded that often and the bucket holds the content."""
    wait_for(lambda: len(parts.states(key)) == generations, what=f"{key} is recorded {generations} times")
    assert parts.content(key) == content
    latest = parts.stories(key)[0]
    assert latest.state is State.PENDING
    assert latest.size == len(content)


def test_files_that_arrive_in_every_way(inbox: Path, outside: Path, parts: Parts) -> None:
    """A file counts whether it was there before, moved in, written and closed, renamed, or came with its folder."""
    with watching(sensor_on(inbox, parts), parts):
        recorded(parts, "sales/there-before-start.csv", b"first")

        (outside / "moved.csv").write_bytes(b"moved")
        (outside / "moved.csv").rename(inbox / "sales" / "moved.csv")
        recorded(parts, "sales/moved.csv", b"moved")

        (inbox / "sales" / "written.csv").write_bytes(b"written")
        recorded(parts, "sales/written.csv", b"written")

        (inbox / "sales" / "renamed.csv.part").write_bytes(b"renamed")
        (inbox / "sales" / "renamed.csv.part").rename(inbox / "sales" / "renamed.csv")
        recorded(parts, "sales/renamed.csv", b"renamed")

        (inbox / "sales" / "a" / "b").mkdir(parents=True)
        (inbox / "sales" / "a" / "b" / "deep.csv").write_bytes(b"deep")
        recorded(parts, "sales/a/b/deep.csv", b"deep")

        (outside / "folder" / "inner").mkdir(parents=True)
        (outside / "folder" / "one.csv").write_bytes(b"one")
        (outside / "folder" / "inner" / "two.csv").write_bytes(b"two")
        (outside / "folder").rename(inbox / "sales" / "folder")
        recorded(parts, "sales/folder/one.csv", b"one")
        recorded(parts, "sales/folder/inner/two.csv", b"two")

        (inbox / "sales" / "upload.tmp").mkdir()
        (inbox / "sales" / "upload.tmp" / "three.csv").write_bytes(b"three")
        (inbox / "sales" / "upload.tmp").rename(inbox / "sales" / "upload")
        recorded(parts, "sales/upload/three.csv", b"three")

        (inbox / "sales" / "empty.csv").touch()
        recorded(parts, "sales/empty.csv", b"")
    assert len(parts.keys()) == 9


def test_many_new_folders_filled_at_once(inbox: Path, parts: Parts) -> None:
    """No file is missed that is written into a folder made a moment before."""
    with watching(sensor_on(inbox, parts), parts):
        for number in range(40):
            path = inbox / "sales" / f"{number}" / "x" / "y" / "data.csv"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"%d" % number)
        wait_for(lambda: len(parts.ledger.facts.by_state(State.PENDING)) == 41, what="all are recorded")
    assert parts.content("sales/39/x/y/data.csv") == b"39"


def test_one_open_handle_is_not_touched_until_it_is_closed(inbox: Path, parts: Parts) -> None:
    """A file that is written through one handle is taken whole, soon after it is closed, and never before."""
    sensor = sensor_on(inbox, parts)
    path = inbox / "sales" / "slow.csv"

    def looked(often: int) -> bool:
        return path in sensor._queue.waiting and sensor._queue.waiting[path].looks >= often

    with watching(sensor, parts):
        with path.open("wb", buffering=0) as file:
            for number in range(10):
                file.write(b"chunk %d\n" % number)
                wait_for(partial(looked, min(number + 1, 6)), what="the sensor looked")
                assert parts.content("sales/slow.csv") is None
                assert parts.stories("sales/slow.csv") == []
            # The next look comes after the longest pause.
            sensor._queue.waiting[path].looks = 10
            wait_for(partial(looked, 11), what="the sensor looked")
        closed = time.monotonic()
        recorded(parts, "sales/slow.csv", b"".join(b"chunk %d\n" % number for number in range(10)))
        assert time.monotonic() - closed < 4, "an open file that was looked at often is late once it is closed"


def test_reopened_for_each_chunk(inbox: Path, parts: Parts) -> None:
    """A file that is closed and reopened for each chunk ends with its last content as the latest generation."""
    whole = b"".join(b"line %d\n" % number for number in range(10))
    with watching(sensor_on(inbox, parts), parts):
        for number in range(10):
            with (inbox / "sales" / "log.csv").open("ab") as file:
                file.write(b"line %d\n" % number)
        wait_for(lambda: parts.content("sales/log.csv") == whole, what="the last content is there")
        wait_for(lambda: [s.size for s in parts.stories("sales/log.csv")[:1]] == [len(whole)], what="it is recorded")
    stories = parts.stories("sales/log.csv")
    assert [story.state for story in stories] == [State.PENDING] + [State.SUPERSEDED] * (len(stories) - 1)


def test_touched_and_overwritten(inbox: Path, parts: Parts) -> None:
    """A touch is nothing, and another content is another generation."""
    sensor = sensor_on(inbox, parts)
    path = inbox / "sales" / "x.csv"
    path.write_bytes(b"one")
    assert (sensor.scan(), work_off(sensor)) == (1, 1)
    assert sensor.scan() == 0

    os.utime(path, ns=(1, 1))
    assert (sensor.scan(), work_off(sensor)) == (1, 0)
    assert sensor.scan() == 0, "the touch is remembered"
    assert parts.states("sales/x.csv") == [State.PENDING]

    path.write_bytes(b"two")
    assert (sensor.scan(), work_off(sensor)) == (1, 1)
    recorded(parts, "sales/x.csv", b"two", generations=2)


def test_temporary_names_are_ignored(inbox: Path, parts: Parts) -> None:
    """Neither event nor scan takes a dotfile, a temporary name, or anything in a folder of such a name."""
    sensor = sensor_on(inbox, parts)
    with watching(sensor, parts):
        for name in (".hidden.csv", "a.tmp", "b.csv.part", "c.csv~", ".folder/d.csv", "up.part/e.csv"):
            path = inbox / "sales" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"no")
        (inbox / "sales" / "good.csv").write_bytes(b"good")
        recorded(parts, "sales/good.csv", b"good")
    assert sensor.scan() == 0
    assert sorted(parts.keys()) == ["sales/good.csv", "sales/there-before-start.csv"]
    assert parts.ledger.facts.by_state(State.QUARANTINED) == []


def test_what_cannot_be_taken_is_refused_once(inbox: Path, outside: Path, parts: Parts) -> None:
    """Each refused file has one reason in the ledger, however often it is scanned, and the next good file is taken."""
    (outside / "secret.csv").write_bytes(b"secret")
    sensor = sensor_on(inbox, parts)
    long = "/".join(["x" * 200] * 6)
    with watching(sensor, parts):
        (inbox / "sales" / "link.csv").symlink_to(outside / "secret.csv")
        (inbox / "sales" / "folder").symlink_to(outside)
        os.mkfifo(inbox / "sales" / "pipe.csv")
        Path(os.fsdecode(os.fsencode(inbox) + b"/sales/caf\xe9.csv")).write_bytes(b"x")
        (inbox / "nowhere").mkdir()
        (inbox / "nowhere" / "x.csv").write_bytes(b"x")
        (inbox / "sales" / long).parent.mkdir(parents=True)
        (inbox / "sales" / long).write_bytes(b"x")
        (inbox / "sales" / "good.csv").write_bytes(b"good")
        recorded(parts, "sales/good.csv", b"good")
        wait_for(lambda: len(parts.ledger.facts.by_state(State.QUARANTINED)) == 6, what="all six are refused")
    for path, reason in {
        "sales/link.csv": "symlink",
        "sales/folder": "symlink",
        "sales/pipe.csv": "no regular file",
        "sales/caf\\xe9.csv": "UTF-8",
        "nowhere/x.csv": "declare one in flows/",
        f"sales/{long}": "1,024 bytes",
    }.items():
        (story,) = parts.refusals(path)
        assert story.state is State.QUARANTINED
        assert reason in str(story.reason)
    for _ in range(2):
        assert sensor.scan() == 6
        assert work_off(sensor) == 0
    assert len(parts.ledger.facts.by_state(State.QUARANTINED)) == 6
    assert parts.ledger.facts.by_state(State.SUPERSEDED) == []
    assert sorted(parts.keys()) == ["sales/good.csv", "sales/there-before-start.csv"]


def test_a_refused_file_that_is_removed_or_renamed_is_forgotten(inbox: Path, outside: Path, parts: Parts) -> None:
    """Nothing waits in quarantine for a refused file that was removed, renamed, moved out or moved with its folder."""
    sensor = sensor_on(inbox, parts)
    refused = [f"{folder}/{n}.csv" for folder in ("nowhere", "wrong") for n in (1, 2, 3)]
    with watching(sensor, parts):
        for name in refused:
            (inbox / name).parent.mkdir(exist_ok=True)
            (inbox / name).write_bytes(b"data")
        wait_for(lambda: len(parts.ledger.facts.by_state(State.QUARANTINED)) == 6, what="they are refused")
        (inbox / "nowhere" / "1.csv").unlink()
        (inbox / "nowhere" / "2.csv").rename(inbox / "sales" / "2.csv")
        (inbox / "nowhere" / "3.csv").rename(outside / "3.csv")
        (inbox / "wrong").rename(inbox / "sales" / "right")
        recorded(parts, "sales/2.csv", b"data")
        recorded(parts, "sales/right/1.csv", b"data")
        wait_for(lambda: not parts.ledger.facts.by_state(State.QUARANTINED), what="the refusals are forgotten")
    assert [story.state for name in refused for story in parts.refusals(name)] == [State.SUPERSEDED] * 6
    assert parts.ledger.arrivals.file_marks(refused) == {}


def test_refused_files_that_left_while_nobody_watched_are_forgotten(
    inbox: Path, outside: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start forgets what is gone from every inbox, and keeps what is still there, whatever its name is."""
    monkeypatch.setattr("penstock.ledger.arrivals._PAGE", 3)
    kept = [b"nowhere/kept.csv", b"nowhere/caf\xe9.csv", b"nowhere/back\\xe9slash.csv"]
    gone = [b"nowhere/gone.csv", b"nowhere/gone\xe9.csv", b"folder/gone.csv", b"folder/1.csv", b"folder/2.csv"]
    elsewhere = outside / "nowhere" / "elsewhere.csv"
    for name in [*kept, *gone]:
        path = Path(os.fsdecode(os.path.join(os.fsencode(inbox), name)))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"data")
    (inbox / "nowhere" / "link.csv").symlink_to("no-such-file")
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"data")
    for root in (inbox, outside):
        sensor = sensor_on(root, parts)
        sensor.scan()
        work_off(sensor)
    assert len(parts.ledger.facts.by_state(State.QUARANTINED)) == 10
    for name in gone:
        os.unlink(os.path.join(os.fsencode(inbox), name))
    (inbox / "folder").rmdir()

    def run(stop: threading.Event) -> None:
        sensor_on(inbox, parts, roots=[inbox, outside]).run(stop, scan_every=NEVER)

    with running(run):
        wait_for(lambda: len(parts.ledger.facts.by_state(State.QUARANTINED)) == 5, what="they are forgotten")
    assert sorted(story.key for story in parts.ledger.facts.by_state(State.QUARANTINED)) == [
        "nowhere/back\\xe9slash.csv",
        "nowhere/caf\\xe9.csv",
        "nowhere/elsewhere.csv",
        "nowhere/kept.csv",
        "nowhere/link.csv",
    ]
    assert len(parts.ledger.facts.by_state(State.SUPERSEDED)) == 5
    assert parts.ledger.arrivals.file_marks(["nowhere/gone.csv", "folder/1.csv"]) == {}


def test_a_dataset_declared_later_takes_what_was_refused(inbox: Path, parts: Parts, embedded: RealStore) -> None:
    """A file whose folder no dataset took is taken by the first scan after one does, and its refusal is over."""
    (inbox / "late").mkdir()
    (inbox / "late" / "x.csv").write_bytes(b"data")
    sensor = sensor_on(inbox, parts)
    sensor.scan()
    work_off(sensor)
    assert parts.refusals("late/x.csv")[0].state is State.QUARANTINED
    parts.landing = Landing(
        store=parts.store, ledger=parts.ledger, datasets=[Dataset(name="late")], bucket=parts.bucket
    )
    sensor = sensor_on(inbox, parts)
    sensor.scan()
    assert work_off(sensor) == 1
    recorded(parts, "late/x.csv", b"data")
    assert parts.refusals("late/x.csv")[0].state is State.SUPERSEDED
    assert sensor.scan() == 0


def test_what_is_recorded_is_not_recorded_again_when_the_ledger_goes_away_next(
    inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files their refusals are over: all that could fail afterwards makes nothing of them happen again."""
    names = ["late/x.csv", "late/y.csv"]
    (inbox / "late").mkdir()
    for name in names:
        (inbox / name).write_bytes(b"data")
    sensor = sensor_on(inbox, parts)
    sensor.scan()
    work_off(sensor)
    parts.landing = Landing(
        store=parts.store, ledger=parts.ledger, datasets=[Dataset(name="late")], bucket=parts.bucket
    )
    given: list[str] = []

    class Leaves(Arrivals):
        """A ledger that forgets nothing once it has recorded something."""

        def record(self, seen: Any, via: Any, **how: Any) -> int:
            """As the real one."""
            given.extend(one.stat.key for one in seen)
            return super().record(seen, via, **how)

        def forget_refusal(self, key: str) -> None:
            """Not now."""
            raise LedgerUnavailable

        def forget_files(self, paths: Sequence[str]) -> None:
            """Not now."""
            raise LedgerUnavailable

    ledger = Leaves(parts.ledger.database, "demo")
    monkeypatch.setattr(parts.ledger, "arrivals", ledger)
    now = [0.0]
    sensor = sensor_on(inbox, parts, Folder(after="delete"), arrivals=ledger, monotonic=lambda: now[0])
    sensor.scan()
    sensor._begin()
    wait_for(lambda: [one.over for one in sensor._taking.uploads.under_way] == [True] * 2, what="both are put")
    for _ in range(10):
        sensor.run_once()
        now[0] += 60
    assert sorted(given) == names
    assert [story.state for name in names for story in parts.refusals(name)] == [State.SUPERSEDED] * 2
    assert [parts.states(name) for name in names] == [[State.PENDING]] * 2


@pytest.mark.parametrize("size", [10, 6_000_000], ids=["small", "multipart"])
def test_written_while_it_is_uploaded(inbox: Path, parts: Parts, size: int) -> None:
    """A file that is written during its upload is never visible half, and then taken as it became."""
    path = inbox / "sales" / "x.csv"
    appended: list[str] = []

    def append(key: str) -> None:
        if len(appended) < 2:
            appended.append(key)
            with path.open("ab") as file:
                file.write(b"+")

    store = MeddledStore(real=parts.store, during=append)
    sensor = sensor_on(inbox, parts, store=store)
    path.write_bytes(b"x" * size)
    sensor.scan()
    assert work_off(sensor) == 1
    assert len(store.puts) == 3
    assert store.torn == []
    assert len(appended) == 2
    recorded(parts, "sales/x.csv", b"x" * size + b"++")


def test_the_store_is_down(tmp_path: Path, inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the store is down files stay, it is said once, and in their order they go on when it is back."""
    caplog.set_level(logging.INFO)
    with real_store("embedded") as server, parts_in(tmp_path, server) as parts:
        sensor = sensor_on(inbox, parts)
        with watching(sensor, parts):
            server.kill()
            names = [f"{number}.csv" for number in (3, 1, 4, 2)]
            for name in names:
                (inbox / "sales" / name).write_bytes(name.encode())
                wait_for(partial(sensor._queue.waiting.__contains__, inbox / "sales" / name), what="the event")
            pauses: set[float] = set()

            def tried() -> bool:
                pauses.add(sensor._taking.outage.until)
                return len(pauses) >= 3

            wait_for(tried, what="it was tried twice")
            server.start()
            for name in names:
                recorded(parts, f"sales/{name}", name.encode())
        assert sum("stay in the inbox" in r.getMessage() for r in caplog.records) == 1
        assert sum("goes on" in r.getMessage() for r in caplog.records) == 1
        arrived = sorted(parts.ledger.facts.by_state(State.PENDING), key=lambda story: story.id)
        assert [story.key for story in arrived[1:]] == [f"sales/{name}" for name in names]


def test_a_file_that_the_store_never_takes_holds_up_no_other(
    inbox: Path, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that meets an error of its own is tried again and again, while the others go by."""
    parts.put("sales/both", b"an object where a folder would have to be")
    (inbox / "sales" / "both").mkdir()
    (inbox / "sales" / "both" / "x.csv").write_bytes(b"x")
    with watching(sensor_on(inbox, parts), parts):
        (inbox / "sales" / "good.csv").write_bytes(b"good")
        recorded(parts, "sales/good.csv", b"good")
        wait_for(lambda: "both/x.csv cannot be taken" in caplog.text, what="it is said")
        (inbox / "sales" / "better.csv").write_bytes(b"better")
        recorded(parts, "sales/better.csv", b"better")


def test_an_inbox_that_cannot_be_scanned(inbox: Path, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """While the ledger cannot be asked each scan fails, which is said once an outage."""

    class Away(Arrivals):
        """A ledger that cannot even be read, while `away`."""

        away = True

        def file_marks(self, paths: Sequence[str]) -> dict[str, FileMark]:
            """As the real one, or not at all."""
            if self.away:
                raise LedgerUnavailable
            return super().file_marks(paths)

    ledger = Away(parts.ledger.database, "demo")
    sensor = sensor_on(inbox, parts, arrivals=ledger)
    (inbox / "sales" / "a.csv").write_bytes(b"x")
    for away in (True, True, False, True, True):
        ledger.away = away
        sensor._scan_safely()
    assert sum("could not be scanned" in record.getMessage() for record in caplog.records) == 2


class FullDisk(Arrivals):
    """A ledger that reads, and writes nothing while `full`."""

    full = True

    def record(self, *what: Any, **how: Any) -> int:
        """As the real one, or not at all."""
        if self.full:
            raise LedgerUnavailable("the ledger does not answer: database or disk is full")
        return super().record(*what, **how)


def test_a_ledger_that_can_only_be_read(
    inbox: Path, parts: Parts, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the ledger's disk is full no file is uploaded twice, few are once, and then all is recorded."""
    caplog.set_level(logging.INFO)
    ledger = FullDisk(parts.ledger.database, "demo")
    monkeypatch.setattr(parts.ledger, "arrivals", ledger)
    monkeypatch.setattr(uploads, "_MOST", 8)
    monkeypatch.setattr(taking, "_TOGETHER", 4)
    now = [0.0]
    store = MeddledStore(real=parts.store)
    sensor = sensor_on(inbox, parts, store=store, monotonic=lambda: now[0])
    for number in range(40):
        path = inbox / "sales" / f"{number}.csv"
        path.write_bytes(b"%d" % number)
        os.utime(path, ns=(1, 1))
    sensor.scan()
    for _ in range(120):
        assert sensor.run_once() == 0
        now[0] += 1
    assert len(store.puts) == len(set(store.puts)) <= 20
    ledger.full = False
    taken = 0
    for _ in range(61):
        taken += sensor.run_once()
        now[0] += 1
    assert taken == 40
    assert len(store.puts) == len(set(store.puts)) == 40
    assert {len(parts.states(f"sales/{number}.csv")) for number in range(40)} == {1}
    assert sensor.scan() == 0, "they are remembered"
    said = [record.getMessage() for record in caplog.records if record.name.startswith("penstock")]
    assert said == [
        "the ledger does not answer: database or disk is full; files stay in the inbox until it is back",
        "the folder sensor goes on",
    ]


def test_what_was_written_or_overwritten_since_it_could_not_be_recorded_is_put_again(
    inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the store still has, of a file that is still the same, is recorded without another upload."""
    ledger = FullDisk(parts.ledger.database, "demo")
    monkeypatch.setattr(parts.ledger, "arrivals", ledger)
    now = [0.0]
    store = MeddledStore(real=parts.store)
    sensor = sensor_on(inbox, parts, store=store, monotonic=lambda: now[0])
    written, overwritten = inbox / "sales" / "w.csv", inbox / "sales" / "o.csv"
    for path in (written, overwritten):
        path.write_bytes(b"one")
        os.utime(path, ns=(1, 1))
    sensor.scan()
    assert sensor.run_once() == 0
    assert sorted(store.puts) == ["sales/o.csv", "sales/w.csv"]
    written.write_bytes(b"two")
    os.utime(written, ns=(2, 2))
    parts.put("sales/o.csv", b"by another")
    ledger.full = False
    now[0] += 60
    assert sensor.run_once() == 2
    assert sorted(store.puts) == ["sales/o.csv", "sales/o.csv", "sales/w.csv", "sales/w.csv"]
    recorded(parts, "sales/w.csv", b"two")
    recorded(parts, "sales/o.csv", b"one")


def test_one_file_that_the_store_denies(inbox: Path, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """A key that the store does not let us write is said once and stops neither the others nor the sensor."""

    def deny(key: str) -> None:
        if key == "sales/denied.csv":
            raise SettingsError("the store does not accept the keys (AccessDenied)")

    now = [0.0]
    store = MeddledStore(real=parts.store, during=deny)
    sensor = sensor_on(inbox, parts, store=store, monotonic=lambda: now[0])
    taken = 0
    for number in range(12):
        for name in (f"{number}.csv", "denied.csv"):
            (inbox / "sales" / name).write_bytes(b"x")
            os.utime(inbox / "sales" / name, ns=(1, 1))
        sensor.scan()
        taken += sensor.run_once()
        assert taken == number + 1, "no other file waits"
        now[0] += 2
    assert 2 <= store.puts.count("sales/denied.csv") <= 6
    assert sum("denied.csv cannot be taken" in record.getMessage() for record in caplog.records) == 1
    assert len(caplog.records) == 1


def test_wrong_keys_are_waited_out(inbox: Path, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """A store that does not take our keys at all is said once, and the sensor goes on once it does."""

    class Locked(MeddledStore):
        """A store with other keys than ours, while `locked`."""

        locked = True

        def ping(self, bucket: str = "") -> None:
            if self.locked:
                raise SettingsError("the store does not accept the keys")

        def put(self, *what: Any) -> Any:
            self.ping()
            return super().put(*what)

    now = [0.0]
    store = Locked(real=parts.store)
    sensor = sensor_on(inbox, parts, store=store, monotonic=lambda: now[0])
    for name in ("a.csv", "b.csv", "c.csv"):
        (inbox / "sales" / name).write_bytes(b"x")
        os.utime(inbox / "sales" / name, ns=(1, 1))
    sensor.scan()
    for _ in range(60):
        assert sensor.run_once() == 0
        now[0] += 1
    assert [record.getMessage() for record in caplog.records] == [
        "the store does not accept the keys; files stay in the inbox until it is back"
    ]
    store.locked = False
    now[0] += 30
    assert sensor.run_once() == 3


@pytest.mark.parametrize("after", ["delete", "archive"])
def test_an_inbox_that_can_only_be_read(
    inbox: Path, parts: Parts, after: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are recorded once; that they cannot be removed is said once a folder and tried again at each scan."""
    sensor = sensor_on(inbox, parts, Folder(after=after))
    (inbox / "sales" / "b").mkdir()
    paths = [inbox / "sales" / f"{folder}{number}.csv" for folder in ("", "b/") for number in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
    tried: list[Path] = []

    def read_only(path: Path, *where: Any) -> None:
        tried.append(path)
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        patch.setattr(Path, "rename", read_only)
        for _ in range(3):
            assert sensor.scan() == 10
            work_off(sensor)
        assert len(tried) == 30
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("is recorded and cannot be removed" in line and "Read-only" in line for line in said)
    assert len(parts.ledger.facts.by_state(State.PENDING)) == 10
    assert sensor.scan() == 10
    work_off(sensor)
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize("after", ["delete", "archive"])
def test_after(inbox: Path, parts: Parts, after: Any) -> None:
    """Once recorded a file is deleted or archived, and the ledger forgets it."""
    sensor = sensor_on(inbox, parts, Folder(after=after))
    path = inbox / "sales" / "a" / "x.csv"
    path.parent.mkdir()
    path.write_bytes(b"data")
    mtime = path.stat().st_mtime_ns
    sensor.scan()
    assert work_off(sensor) == 1
    recorded(parts, "sales/a/x.csv", b"data")
    assert not path.exists()
    assert parts.ledger.arrivals.file_marks(["sales/a/x.csv"]) == {}
    archived = inbox / ".archive" / "sales" / "a" / f"x.csv.{mtime}"
    assert archived.exists() is (after == "archive")
    assert sensor.scan() == 0


def test_after_leaves_what_was_written_since(inbox: Path, parts: Parts) -> None:
    """A file that was written again since it was recorded is not deleted before that is recorded too."""
    path = inbox / "sales" / "x.csv"
    content_at_end: list[bytes] = []

    def overwrite(key: str) -> None:
        if not content_at_end:
            content_at_end.append(b"the second, longer")
            path.write_bytes(content_at_end[0])

    store = MeddledStore(real=parts.store, after=overwrite)
    sensor = sensor_on(inbox, parts, Folder(after="delete"), store=store)
    path.write_bytes(b"first")
    sensor.scan()
    assert work_off(sensor) == 2
    recorded(parts, "sales/x.csv", b"the second, longer", generations=2)
    assert not path.exists()


def test_after_spares_a_file_that_somebody_has_open(inbox: Path, parts: Parts) -> None:
    """A recorded file that somebody is about to write to is not taken away under the writer's hands."""
    path = inbox / "sales" / "x.csv"
    writers: list[BinaryIO] = []

    def open_again(key: str) -> None:
        if not writers:
            writers.append(path.open("ab"))

    store = MeddledStore(real=parts.store, after=open_again)
    sensor = sensor_on(inbox, parts, Folder(after="delete"), store=store)
    path.write_bytes(b"first")
    sensor.scan()
    wait_for(sensor.run_once, what="it is recorded")
    assert path.exists()
    with writers[0] as file:
        file.write(b" and more")
    sensor.scan()
    assert work_off(sensor) == 1
    recorded(parts, "sales/x.csv", b"first and more", generations=2)
    assert not path.exists()


def test_after_is_made_up_for_when_a_crash_came_between(inbox: Path, parts: Parts) -> None:
    """A file that was recorded but not yet deleted when the sensor died is deleted by the next one."""
    path = inbox / "sales" / "x.csv"
    path.write_bytes(b"data")
    keeping = sensor_on(inbox, parts)
    keeping.scan()
    assert work_off(keeping) == 1
    assert path.exists()
    deleting = sensor_on(inbox, parts, Folder(after="delete"))
    assert deleting.scan() == 1
    assert work_off(deleting) == 0
    assert not path.exists()
    assert parts.states("sales/x.csv") == [State.PENDING]


def test_scan_finds_what_no_event_told_of(inbox: Path, parts: Parts) -> None:
    """What was dropped while no sensor ran is found by the scan at start, all of it and once."""
    for number in range(300):
        (inbox / "sales" / f"{number:03}.csv").write_bytes(b"%d" % number)
    sensor = sensor_on(inbox, parts)
    assert sensor.scan() == 300
    assert work_off(sensor) == 300
    assert sensor.scan() == 0
    assert len(parts.keys()) == 300


def test_more_than_can_wait_is_found_by_another_scan(
    inbox: Path, outside: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes while the queue is full is not kept in memory, and yet found as soon as the queue is empty."""
    monkeypatch.setattr(folder, "_MOST_WAITING", 5)
    sensor = sensor_on(inbox, parts)
    most = 0
    with watching(sensor, parts):
        (outside / "many").mkdir()
        for number in range(40):
            (outside / "many" / f"{number}.csv").write_bytes(b"%d" % number)
        (outside / "many").rename(inbox / "sales" / "many")

        def all_recorded() -> bool:
            nonlocal most
            most = max(most, len(sensor._queue.waiting))
            return len(parts.ledger.facts.by_state(State.PENDING)) == 41

        wait_for(all_recorded, what="all are recorded")
    assert most <= 5


@pytest.mark.parametrize("grows", [False, True])
def test_where_no_lease_can_tell_a_file_must_keep_still(inbox: Path, parts: Parts, grows: bool) -> None:
    """Where the kernel cannot name writers a file is taken only after it kept size and mtime for the settle time."""
    now = [100.0]
    sensor = sensor_on(
        inbox,
        parts,
        Folder(settle=timedelta(seconds=2)),
        writer_of=lambda file: Writer.UNKNOWN,
        monotonic=lambda: now[0],
    )
    path = inbox / "sales" / "x.csv"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    sensor.offer(path)
    assert sensor.run_once() == 0
    now[0] += 1.9
    if grows:
        path.write_bytes(b"one two")
        os.utime(path, ns=(1, 1))
    sensor.offer(path)
    assert sensor.run_once() == 0
    now[0] += 0.2
    assert sensor.run_once() == (0 if grows else 1)
    now[0] += 1.9
    assert sensor.run_once() == (1 if grows else 0)
    recorded(parts, "sales/x.csv", b"one two" if grows else b"one")


def test_polling(inbox: Path, outside: Path, parts: Parts) -> None:
    """The polling observer sees new and overwritten files too, and follows no symlink out of the inbox."""
    (outside / "secret.csv").write_bytes(b"secret")
    with watching(sensor_on(inbox, parts, Folder(polling=True)), parts):
        (inbox / "sales" / "folder").symlink_to(outside)
        (inbox / "sales" / "x.csv").write_bytes(b"one")
        recorded(parts, "sales/x.csv", b"one")
        (inbox / "sales" / "x.csv").write_bytes(b"other")
        recorded(parts, "sales/x.csv", b"other", generations=2)
        wait_for(lambda: parts.refusals("sales/folder"), what="the symlink is refused")
        (outside / "later.csv").write_bytes(b"secret")
        (inbox / "sales" / "y.csv").write_bytes(b"y")
        recorded(parts, "sales/y.csv", b"y")
    assert sorted(parts.keys()) == ["sales/there-before-start.csv", "sales/x.csv", "sales/y.csv"]


def test_an_event_that_comes_during_a_look_is_not_lost(inbox: Path, parts: Parts) -> None:
    """A file written after it was looked at, but before the look was over, is looked at again."""
    path = inbox / "sales" / "x.csv"
    path.write_bytes(b"one")
    sensor = sensor_on(inbox, parts)
    sensor.scan()
    assert work_off(sensor) == 1

    class Slow(Arrivals):
        """Answers, and only then lets the file be overwritten and its event come."""

        overwritten = False

        def file_marks(self, paths: Any) -> dict[str, FileMark]:
            marks = super().file_marks(paths)
            if not self.overwritten:
                self.overwritten = True
                path.write_bytes(b"two")
                sensor.offer(path)
            return marks

    sensor = sensor_on(inbox, parts, arrivals=Slow(parts.ledger.database, "demo"))
    sensor.offer(path)
    assert work_off(sensor) == 1
    recorded(parts, "sales/x.csv", b"two", generations=2)


def test_stop_does_not_wait_for_a_burst(inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor that is asked to stop leaves what waits to the next one's scan."""
    monkeypatch.setattr(uploads, "_MOST", 10)
    monkeypatch.setattr(taking, "_TOGETHER", 2)
    stop = threading.Event()
    store = MeddledStore(real=parts.store, after=lambda key: stop.set())
    sensor = sensor_on(inbox, parts, store=store)
    for number in range(60):
        (inbox / "sales" / f"{number}.csv").write_bytes(b"%d" % number)
    sensor.run(stop, scan_every=NEVER)
    assert 1 <= len(parts.keys()) <= 10
    again = sensor_on(inbox, parts)
    again.scan()
    assert work_off(again) == 60 - len(store.puts)


def held(key: str, parts: Parts) -> tuple[MeddledStore, threading.Event, threading.Event]:
    """A store whose PUT of `key` is held until an event, and an event that tells that it is."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(name: str) -> None:
        if name == key:
            begun.set()
            assert go_on.wait(30)

    return MeddledStore(real=parts.store, during=hold), begun, go_on


@pytest.mark.parametrize("writer", ["closes before it", "closes after it", "opens after it"])
def test_what_is_closed_during_the_look_keeps_its_place(inbox: Path, parts: Parts, writer: str) -> None:
    """A file that is written and closed while it is looked at comes before those that were dropped since."""
    first, second = inbox / "sales" / "1.csv", inbox / "sales" / "2.csv"
    first.touch()
    writing = None if writer == "opens after it" else first.open("wb")
    looks = 0

    def writer_of(file: Any) -> Writer:
        """The kernel's answer, just before or after the file's writer is done and the next file is there."""
        nonlocal looks
        looks += 1
        before = files.writer_of(file)
        if looks == 1:
            if writing is None:
                first.write_bytes(b"one")
            else:
                writing.write(b"one")
                writing.close()
            second.write_bytes(b"two")
            for path in (first, second):
                sensor.offer(path)
        return files.writer_of(file) if writer == "closes before it" else before

    sensor = sensor_on(inbox, parts, writer_of=writer_of)
    sensor.offer(first)
    assert work_off(sensor) == 2
    assert [story.size for story in parts.stories("sales/1.csv")] == [3]
    arrived = sorted(parts.ledger.facts.by_state(State.PENDING), key=lambda story: story.id)
    assert [story.key for story in arrived] == ["sales/1.csv", "sales/2.csv"]


@pytest.mark.parametrize("size", [10, 17_000_000], ids=["small", "large"])
def test_a_slow_upload_is_overtaken_by_other_datasets_only(
    inbox: Path, outside: Path, parts: Parts, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files came after it, those of its ordered dataset are recorded behind it, and no other waits."""
    monkeypatch.setattr(uploads, "_MOST", 48)
    monkeypatch.setattr(uploads, "_MOST_OF_ONE", 24)
    (inbox / "other").mkdir()
    names = [f"{number:02}.csv" for number in range(60)]
    store, begun, go_on = held("sales/slow.csv", parts)
    parts.datasets = [Dataset(name="sales"), Dataset(name="other")]
    with watching(sensor_on(inbox, parts, store=store), parts):
        try:
            (outside / "slow.csv").write_bytes(b"x" * size)
            (outside / "slow.csv").rename(inbox / "sales" / "slow.csv")
            assert begun.wait(30)
            for folder_name in ("sales", "other"):
                for name in names:
                    (inbox / folder_name / name).write_bytes(b"x")
            wait_for(lambda: len(parts.ledger.facts.by_state(State.PENDING)) == 61, what="the others are recorded")
            assert all(parts.states(f"other/{name}") for name in names)
            # One that was put while a large one is on its way would be seen in the bucket, and recorded from there.
            assert size == 10 or not any(key.startswith("sales/0") for key in store.puts)
        finally:
            go_on.set()
        wait_for(lambda: len(parts.ledger.facts.by_state(State.PENDING, limit=200)) == 122, what="all are recorded")
    arrived = sorted(parts.ledger.facts.by_state(State.PENDING, limit=200), key=lambda story: story.id)
    ordered = [story.key for story in arrived if story.key.startswith("sales/")]
    assert ordered[1:] == ["sales/slow.csv", *(f"sales/{name}" for name in names)]


@pytest.mark.parametrize("size", [10, 17_000_000], ids=["small", "large"])
def test_where_order_does_not_matter_a_slow_upload_holds_up_no_other(
    inbox: Path, outside: Path, parts: Parts, size: int
) -> None:
    """While a file is on its way others of its dataset are recorded; it is recorded itself once it is there."""
    store, begun, go_on = held("sales/slow.csv", parts)
    parts.datasets = [Dataset(name="sales", ordered=False)]
    with watching(sensor_on(inbox, parts, store=store), parts):
        try:
            (outside / "slow.csv").write_bytes(b"x" * size)
            (outside / "slow.csv").rename(inbox / "sales" / "slow.csv")
            assert begun.wait(30)
            for number in range(30):
                (inbox / "sales" / f"{number}.csv").write_bytes(b"x")
            wait_for(lambda: len(parts.ledger.facts.by_state(State.PENDING)) == 31, what="the others are recorded")
            assert parts.stories("sales/slow.csv") == []
        finally:
            go_on.set()
        recorded(parts, "sales/slow.csv", b"x" * size)


@pytest.mark.parametrize("ordered", [True, False])
def test_large_files_take_turns_and_none_is_forgotten(
    inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch, ordered: bool
) -> None:
    """Of many large files few are on their way at a time, and all are taken, also when some of them vanish."""
    monkeypatch.setattr(uploads, "_LARGE", 5)
    parts.datasets = [Dataset(name="sales", ordered=ordered)]
    store, _, go_on = held("sales/00.csv", parts)
    parts.landing = parts.landing_with(parts.store)
    sensor = sensor_on(inbox, parts, store=store)
    for number in range(40):
        (inbox / "sales" / f"{number:02}.csv").write_bytes(b"large enough")
    sensor.scan()
    try:
        sensor._begin()
        under_way = len(sensor._taking.uploads.under_way)
        for number in range(2, 25):
            (inbox / "sales" / f"{number:02}.csv").unlink()
    finally:
        go_on.set()
    assert work_off(sensor) == 17
    assert under_way == (1 if ordered else 2)


def test_what_was_set_aside_comes_before_what_is_due_since(
    inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a large file is through, those that waited for it are put and recorded before those that came later."""
    monkeypatch.setattr(uploads, "_LARGE", 5)
    store, _, go_on = held("sales/00.csv", parts)
    parts.landing = parts.landing_with(parts.store)
    sensor = sensor_on(inbox, parts, store=store)
    names = [f"{number:02}.csv" for number in range(60)]
    for name in names:
        (inbox / "sales" / name).write_bytes(b"large enough" if name == "00.csv" else b"x")
        sensor.offer(inbox / "sales" / name)
    try:
        sensor._begin()
        (large,) = sensor._taking.uploads.under_way
    finally:
        go_on.set()
    wait_for(lambda: large.over, what="it is put")
    assert large.error is None
    assert work_off(sensor) == 60
    arrived = sorted(parts.ledger.facts.by_state(State.PENDING), key=lambda story: story.id)
    assert [story.key for story in arrived] == [f"sales/{name}" for name in names]


def test_a_hung_upload_is_no_sign_of_life(inbox: Path, parts: Parts) -> None:
    """However many others go by, the sensor is not alive while one file does not move, and is once it does."""
    store, begun, go_on = held("sales/hangs.csv", parts)
    (inbox / "other").mkdir()
    parts.datasets = [Dataset(name="sales"), Dataset(name="other")]
    beats: list[float] = []
    sensor = sensor_on(inbox, parts, store=store)
    sensor._alive = lambda: beats.append(time.monotonic())
    with watching(sensor, parts):
        try:
            (inbox / "sales" / "hangs.csv").write_bytes(b"x")
            assert begun.wait(30)
            for number in range(3):
                (inbox / "other" / f"{number}.csv").write_bytes(b"x")
                wait_for(partial(parts.states, f"other/{number}.csv"), what="it is recorded")
                if number == 0:
                    told = len(beats)
            assert len(beats) == told
        finally:
            go_on.set()
        wait_for(lambda: len(beats) > told, what="a sign of life")


def test_many_files_share_transactions_and_arrive_in_order(
    inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst is recorded in few transactions, in the order of the files, the marks of all included."""
    groups: list[int] = []
    real = parts.landing.record_files

    def record(put: Any, **how: Any) -> int:
        groups.append(len(put))
        return real(put, **how)

    monkeypatch.setattr(parts.landing, "record_files", record)
    with watching(sensor_on(inbox, parts), parts):
        for number in range(300):
            (inbox / "sales" / f"{number:03}.csv").write_bytes(b"%d" % number)
        wait_for(lambda: sum(groups) == 301, what="all are recorded")
    assert len(groups) < 150
    arrived = sorted(parts.ledger.facts.by_state(State.PENDING, limit=400), key=lambda story: story.id)
    assert [story.key for story in arrived[1:]] == [f"sales/{number:03}.csv" for number in range(300)]
    assert len(parts.ledger.arrivals.file_marks([story.key for story in arrived])) == 301


def test_after_a_burst_there_is_a_scan(inbox: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where so many files came at once that events may have been dropped, the interval is not waited for."""
    monkeypatch.setattr(folder, "_BURST", 20)
    store, begun, go_on = held("sales/0.csv", parts)
    sensor = sensor_on(inbox, parts, store=store)
    real = sensor.offer
    dropped: list[Path] = []

    def lossy(path: Path, *, hurry: bool = True) -> None:
        if path.name == "lost.csv" and not go_on.is_set():
            dropped.append(path)
        else:
            real(path, hurry=hurry)

    monkeypatch.setattr(sensor, "offer", lossy)
    with watching(sensor, parts):
        try:
            (inbox / "sales" / "0.csv").write_bytes(b"x")
            assert begun.wait(30)
            (inbox / "sales" / "lost.csv").write_bytes(b"lost")
            for number in range(1, 30):
                (inbox / "sales" / f"{number}.csv").write_bytes(b"x")
            wait_for(lambda: sensor._burst, what="the burst is noticed")
        finally:
            go_on.set()
        recorded(parts, "sales/lost.csv", b"lost")
    assert dropped
