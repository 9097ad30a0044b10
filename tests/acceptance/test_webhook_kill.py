"""kill -9 in the middle of a thousand posts: what was answered with 202 is there, and there once."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock import envelope
from penstock.declarations import Dataset
from penstock.flows.batch import Batch
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.sensors.sweep import Sweep
from penstock.settings import Settings
from penstock.verification import standard_webhooks
from penstock.warehouse.duckdb import DuckDBWarehouse
from penstock.webhook.verify import sign
from tests.acceptance.served import BUCKET, Served, serving
from tests.waiting import wait_for

AT_ONCE = 1000
# Those that begin once the one, and the other, fault is set: or all could be past its seam by then.
LATER = 200
POSTS = AT_ONCE + 2 * LATER
SECRET = "whsec_" + "bm90aGluZyBpcyBsb3N0LCBub25lIGRvdWJsZWQ="
SIGNED = standard_webhooks("SHOP_WEBHOOK_SECRET")
SHOP = Dataset(name="shop", columns={"id": "BIGINT"})
FILES = {
    "flows/shop.py": 'from penstock import Dataset\n\nDATASET = Dataset(name="shop", columns={"id": "BIGINT"})\n',
    "webhook/shop.py": (
        "from penstock import Source, standard_webhooks\n\n"
        'SOURCE = Source(name="shop", dataset="shop", verify=standard_webhooks("SHOP_WEBHOOK_SECRET"))\n'
    ),
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a sender was told."""

    status: int
    duplicate: bool


@dataclass(kw_only=True)
class Senders:
    """A thousand senders at once, and some later. Each sends its delivery until it has a 2xx, and then once again."""

    served: Served
    first: dict[int, Answer] = field(default_factory=dict)
    again: dict[int, Answer] = field(default_factory=dict)
    # How often an attempt ended so; 0 is one without an answer.
    attempts: Counter[int] = field(default_factory=Counter)
    in_flight: int = 0
    # One for each fault that is to be met.
    waves: tuple[asyncio.Event, asyncio.Event] = field(default_factory=lambda: (asyncio.Event(), asyncio.Event()))
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def all(self) -> None:
        """Send everything; return when every sender has its two answers."""
        async with asyncio.TaskGroup() as group:
            for number in range(POSTS):
                group.create_task(self._sender(number))

    async def accepted(self, many: int) -> None:
        """Return when so many first answers have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.first) >= many)

    async def _sender(self, number: int) -> None:
        if number >= AT_ONCE:
            await self.waves[(number - AT_ONCE) // LATER].wait()
        self.first[number] = await self._until_taken(number)
        async with self._changed:
            self._changed.notify_all()
        self.again[number] = await self._until_taken(number)

    async def _until_taken(self, number: int) -> Answer:
        while True:
            answer = await self._post(number)
            self.attempts[answer.status if answer else 0] += 1
            async with self._changed:
                self._changed.notify_all()
                if answer is not None and answer.status == 202:
                    return answer
                if answer is not None:
                    assert answer.status == 503, answer
                    # Too many at once: there is room when another one has been answered.
                    if self.in_flight:
                        await self._changed.wait()
                    continue
            async with self._starting:
                if not self.served.runs():
                    await asyncio.to_thread(self.served.start)

    async def _post(self, number: int) -> Answer | None:
        """One attempt; None when it has no answer, or not all of it."""
        body = b'{"id": %d}' % number
        headers = {
            "host": f"127.0.0.1:{self.served.port}",
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **sign(SIGNED, SECRET, f"msg_{number}", body, datetime.now(UTC)),
        }
        head = "POST /hooks/shop HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        received = b""
        self.in_flight += 1
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.served.port)
            try:
                writer.write(head.encode() + b"\r\n" + body)
                received = await reader.read()
            finally:
                writer.close()
        self.in_flight -= 1
        top, _, rest = received.partition(b"\r\n\r\n")
        if not rest:
            return None
        status = int(top.split()[1])
        try:
            return Answer(status=status, duplicate=status == 202 and json.loads(rest)["duplicate"])
        except ValueError:  # cut off in the middle
            return None


async def _killed_thrice(served: Served, faults: Path) -> Senders:
    """All posts, with three deaths on the way: outright, after an envelope is in the store, after it is recorded."""
    senders = Senders(served=served)
    sending = asyncio.create_task(senders.all())
    try:
        await senders.accepted(AT_ONCE // 8)
        in_flight = senders.in_flight
        await asyncio.to_thread(served.kill)
        assert in_flight > AT_ONCE // 4, "the kill came when hardly anything was under way"
        for seam, wave in zip(
            ("landing.envelope_after_put", "landing.envelope_after_record"), senders.waves, strict=True
        ):
            await senders.accepted(3 * AT_ONCE // 8)
            faults.joinpath(seam).write_text("kill")
            wave.set()
            await asyncio.to_thread(wait_for, faults.joinpath(f"{seam}.hit").exists, what=f"{seam} is met")
        await sending
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
    return senders


@contextmanager
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.long])])
def test_no_202_is_lost_and_none_doubled(workers: int, tmp_path: Path) -> None:
    """A thousand senders at once, three kills: each delivery is in ledger, envelopes and warehouse exactly once.

    A delivery that comes again after its 202 is always a duplicate, also across the kills. What a kill left in the
    store without a record adds nothing when the sweep finds it, since its sender has come again.
    """
    if workers > 1 and "webhook_workers" not in Settings.model_fields:
        pytest.skip("one process only")
    faults = tmp_path / "faults"
    faults.mkdir()
    with (
        _many_files(),
        serving(
            tmp_path / "project",
            FILES,
            SHOP_WEBHOOK_SECRET=SECRET,
            PENSTOCK_FAULTS=str(faults),
            PENSTOCK_WEBHOOK_WORKERS=str(workers),
        ) as served,
    ):
        senders = asyncio.run(_killed_thrice(served, faults))
        assert sorted(path.name for path in faults.iterdir()) == [
            "landing.envelope_after_put.hit",
            "landing.envelope_after_record.hit",
        ]
        assert set(senders.attempts) <= {0, 202, 503}
        assert senders.attempts[0] > 0
        assert len(senders.first) == len(senders.again) == POSTS
        assert all(answer.duplicate for answer in senders.again.values())
        # Recorded, and killed before the answer: its sender came again, as it should.
        assert any(answer.duplicate for answer in senders.first.values())
        served.kill()
        _has_each_once(served)


def _has_each_once(served: Served) -> None:
    expected = {f"msg_{number}": 1 for number in range(POSTS)}
    store, ledger = served.store.client(), Ledger(served.ledger_url, project="served")
    try:
        landing = Landing(store=store, ledger=ledger, datasets=[SHOP], bucket=BUCKET)
        assert _recorded(served) == expected
        envelopes = sum(1 for _ in store.list(BUCKET, prefix="_penstock/deliveries/"))
        # Those that nobody recorded are old enough an hour from now.
        swept = Sweep(
            BUCKET,
            store=store,
            ledger=ledger,
            landing=landing,
            datasets=[SHOP],
            clock=lambda: utc_now() + timedelta(hours=1),
        ).run_once()
        assert swept.listed == envelopes
        assert _recorded(served) == expected
        assert _found_in_envelopes(served) == expected
        assert _loaded(served, ledger, landing) == [(number,) for number in range(POSTS)]
    finally:
        ledger.close()


def _rows_of_ledger(served: Served) -> list[tuple[str, str, int]]:
    with sqlite3.connect(served.ledger_url.removeprefix("sqlite:///")) as connection:
        return connection.execute("SELECT delivery, key, entry FROM objects WHERE source = 'shop'").fetchall()


def _recorded(served: Served) -> Mapping[str, int]:
    return Counter(delivery for delivery, _, _ in _rows_of_ledger(served))


def _found_in_envelopes(served: Served) -> Mapping[str, int]:
    """The ids that stand where the ledger says that its deliveries are."""
    store = served.store.client()
    read = {key: envelope.decode(store.read(BUCKET, key)) for key in {key for _, key, _ in _rows_of_ledger(served)}}
    return Counter(read[key][entry - 1].id for _, key, entry in _rows_of_ledger(served))


def _loaded(served: Served, ledger: Ledger, landing: Landing) -> list[tuple[int]]:
    """What an ingest run makes of it: the table's rows, sorted."""
    warehouse = DuckDBWarehouse(served.folder / "warehouse.duckdb", wait_seconds=10)
    lease = ledger.work.acquire("shop", holder="the test", ttl=timedelta(minutes=5))
    assert lease is not None
    spool = served.folder / "spool"
    spool.mkdir()
    while refs := ledger.work.claim(lease, run=lease.holder, max_objects=10 * POSTS, max_bytes=10**9):
        batch = Batch(
            refs,
            dataset=SHOP,
            lease=lease,
            run=lease.holder,
            store=served.store.client(),
            ledger=ledger,
            warehouse=warehouse,
            landing=landing,
            spool=spool,
            clock=utc_now,
        )
        batch.fetch()
        batch.check()
        batch.load()
        batch.settle()
        batch.clean()
    wait_for(lambda: ledger.work.finish(lease), what="nothing waits any more")
    return [tuple(row) for row in warehouse.query("SELECT id FROM shop ORDER BY id", limit=2 * POSTS).rows]
