"""The real parts that the sensors' and the batch's tests are made of: store, ledger and landing in one folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

from penstock.declarations import Dataset
from penstock.errors import FileChanged, ObjectMissing
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.facts import Story
from penstock.model import REFUSED_BUCKET, Stat, State, Via
from penstock.objects import ObjectStore
from tests.real_store import RealStore

SALES = Dataset(name="sales")
_numbers = count(1)


@dataclass(kw_only=True)
class FakeClock:
    """A clock that moves when told to."""

    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time it stands at."""
        return self.now

    def advance(self, **by: float) -> None:
        """Move on, by the arguments of `timedelta`."""
        self.now += timedelta(**by)


@dataclass(kw_only=True)
class Parts:
    """A bucket of its own in a running store, and a new ledger."""

    folder: Path
    server: RealStore
    store: ObjectStore
    bucket: str
    ledger: Ledger
    datasets: Sequence[Dataset]
    landing: Landing
    clock: FakeClock

    def landing_with(self, store: ObjectStore) -> Landing:
        """A landing on another store, same ledger."""
        return Landing(store=store, ledger=self.ledger, datasets=self.datasets, bucket=self.bucket)

    def put(self, key: str, data: bytes) -> Stat:
        """PUT by another client."""
        return self.server.client().put_bytes(self.bucket, key, data)

    def arrive(self, key: str, data: bytes) -> None:
        """PUT and record."""
        self.put(key, data)
        assert self.record(key) == 1

    def record(self, key: str) -> int:
        """What a hint for the key records."""
        return self.landing.seen(self.bucket, [key], Via.NOTIFICATION)

    def content(self, key: str) -> bytes | None:
        """What the bucket holds under a key now."""
        try:
            return self.store.read(self.bucket, key)
        except ObjectMissing:
            return None

    def keys(self) -> list[str]:
        """The keys in the bucket."""
        return [stat.key for stat in self.store.list(self.bucket)]

    def stories(self, key: str) -> list[Story]:
        """Every generation of a key in the bucket, newest first."""
        name = f"{self.bucket}/{key}@"
        return [story for story in self.ledger.facts.stories(key) if story.name.startswith(name)]

    def states(self, key: str) -> list[State]:
        """The states of the key's generations, newest first."""
        return [story.state for story in self.stories(key)]

    def refusals(self, path: str) -> list[Story]:
        """What the ledger says of a refused path of the inbox, newest first."""
        name = f"{REFUSED_BUCKET}/{path}@"
        return [story for story in self.ledger.facts.stories(path) if story.name.startswith(name)]


@contextmanager
def parts_in(
    folder: Path, server: RealStore, datasets: Sequence[Dataset] = (SALES,), *, fake_time: bool = False
) -> Iterator[Parts]:
    """Make the parts; the ledger lives in `folder`. With `fake_time` its clock stands still."""
    clock = FakeClock()
    store = server.client()
    bucket = f"landing-{next(_numbers)}"
    store.ensure_bucket(bucket)
    url = f"sqlite:///{folder / 'ledger.db'}"
    ledger = Ledger(url, project="demo", clock=clock) if fake_time else Ledger(url, project="demo")
    ledger.migrate(lock_folder=folder)
    try:
        yield Parts(
            folder=folder,
            server=server,
            store=store,
            bucket=bucket,
            ledger=ledger,
            datasets=datasets,
            landing=Landing(store=store, ledger=ledger, datasets=datasets, bucket=bucket),
            clock=clock,
        )
    finally:
        ledger.close()


@contextmanager
def running(run: Callable[[threading.Event], Any]) -> Iterator[None]:
    """Run something that ends when its event is set; what it raises fails the test."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            run(stop)
        except BaseException as error:  # handed to the test's own thread below
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


@dataclass(kw_only=True)
class MeddledStore:
    """A real store during and after whose puts somebody does something; `torn` is what a FileChanged left visible."""

    real: ObjectStore
    during: Callable[[str], None] = lambda key: None
    after: Callable[[str], None] = lambda key: None
    torn: list[Stat] = field(default_factory=list)
    puts: list[str] = field(default_factory=list)

    def put(self, bucket: str, key: str, data: BinaryIO, size: int) -> Stat:
        """As the real one."""
        self.puts.append(key)
        before = [stat.etag for stat in self.real.list(bucket, prefix=key)]
        try:
            stat = self.real.put(bucket, key, cast(BinaryIO, _Tap(data, lambda: self.during(key))), size)
        except FileChanged:
            self.torn += [stat for stat in self.real.list(bucket, prefix=key) if stat.etag not in before]
            raise
        self.after(key)
        return stat

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Tap:
    def __init__(self, data: BinaryIO, on_first_read: Callable[[], None]) -> None:
        self._data = data
        self._on_first_read: Callable[[], None] | None = on_first_read

    def read(self, size: int) -> bytes:
        chunk = self._data.read(size // 2 if size > 1 and self._on_first_read else size)
        if self._on_first_read:
            self._on_first_read()
            self._on_first_read = None
        return chunk
