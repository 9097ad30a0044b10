"""What `examples/api_sync` decides: pages, marks and retries; and that no change is lost, whenever it is made."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from tests.loading import another_project, module_at

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "api_sync"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
API = "http://api.test"
# All pages take longer than the overlap: a mark of when the last one was asked for would lose what changed before.
REQUEST = timedelta(seconds=15)


pages = module_at(EXAMPLE / "flows" / "_pages.py")
server = module_at(EXAMPLE / "api" / "server.py")


@pytest.fixture(scope="module")
def flows() -> Iterator[ModuleType]:
    """The example's flow, of whose folder a worker would have the name `flows`."""
    with another_project():
        sys.path.insert(0, str(EXAMPLE))
        yield importlib.import_module("flows.customers")


def answer(status: int = 200, body: Any = None, *, took: float = 0, **headers: str) -> httpx.Response:
    """What the API answers at noon."""
    said = {"Date": "Sun, 01 Mar 2026 12:00:00 GMT"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    made = httpx.Response(status, headers=said, content=body, request=httpx.Request("GET", f"{API}/customers"))
    made.elapsed = timedelta(seconds=took)
    return made


def test_a_page_is_read_with_the_time_at_which_it_was_asked_for() -> None:
    """The server's clock, less what its answer took; of the customers the newest change."""
    body = {"customers": [{"updated_at": "2026-03-01T11:00:00Z"}, {"updated_at": "2026-03-01T11:30:00Z"}], "next": 7}
    page = pages.read(answer(body=json.dumps(body).encode(), took=2, ETag='"x"'))
    assert page == pages.Page(
        asked_at=NOW - timedelta(seconds=2), etag='"x"', newest=NOW - timedelta(minutes=30), next=7
    )
    empty = pages.read(answer(body=b'{"customers": [], "next": null}'))
    assert (empty.newest, empty.next) == (None, None)


@pytest.mark.parametrize(
    "body", [b"<html>maintenance</html>", b"[]", b'{"customers": [{}], "next": null}', b'{"next": 1}']
)
def test_what_is_no_page_does_not_land(body: bytes) -> None:
    """A 200 that a proxy made, or a page without times, is an error that is tried again."""
    with pytest.raises(ValueError, match=r"api\.test/customers answered with no page"):
        pages.read(answer(body=body))


def test_the_first_sync_asks_for_everything_and_the_next_for_what_is_newer() -> None:
    """With an overlap, and each page behind the last customer of the one before."""
    memory = pages.nothing_yet(API)
    assert pages.address(memory, 50) == f"{API}/customers?limit=50"
    assert pages.address(memory, 50, 50) == f"{API}/customers?limit=50&after=50"
    walked = [pages.Page(asked_at=NOW, newest=NOW - timedelta(days=1)), pages.Page(asked_at=NOW + timedelta(minutes=1))]
    memory = pages.next_memory(memory, walked, {"a": {"etag": "x", "next": None}})
    assert memory == {"api": API, "until": NOW.isoformat(), "pages": {}}
    assert "updated_since=2026-03-01T11%3A59%3A30%2B00%3A00" in pages.address(memory, 50)


def test_the_mark_stays_while_nothing_is_newer() -> None:
    """What the overlap brings again moves nothing, so that the addresses stay, and the ETags are of use."""
    known = {"a": {"etag": "x", "next": None}}
    memory = {"api": API, "until": NOW.isoformat(), "pages": {}}
    later = NOW + timedelta(minutes=5)
    for newest in (None, NOW - timedelta(seconds=10), NOW):
        stays = pages.next_memory(memory, [pages.Page(asked_at=later, newest=newest)], known)
        assert stays == {**memory, "pages": known}
    moves = pages.next_memory(memory, [pages.Page(asked_at=later, newest=NOW + timedelta(seconds=1))], known)
    assert moves == {"api": API, "until": later.isoformat(), "pages": {}}


@pytest.mark.parametrize(
    ("status", "said", "seconds"),
    [
        (429, "3", 3),
        (503, "Sun, 01 Mar 2026 12:00:09 GMT", 9),
        (429, "86400", 60),
        (429, "-1", 0),
        (429, "soon", 0),
        (429, "", 0),
        (500, "3", 0),
    ],
)
def test_the_pause_that_the_api_asks_for(status: int, said: str, seconds: float) -> None:
    """In seconds or as a time, and a minute at most."""
    assert pages.pause_asked_for(answer(status, Retry_After=said)) == seconds
    assert pages.pause_asked_for(answer(429)) == 0


def refused(status: int) -> httpx.HTTPStatusError:
    """As `raise_for_status` raises it."""
    return httpx.HTTPStatusError("no", request=httpx.Request("GET", API), response=httpx.Response(status))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        *((refused(status), True) for status in (408, 429, 500, 502, 503, 504)),
        *((refused(status), False) for status in (301, 400, 401, 403, 404, 410, 422)),
        (httpx.ReadTimeout("slow"), True),
        (httpx.ConnectError("away"), True),
        (ValueError("no page"), True),
        (KeyError("a mistake of the flow's"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    """The condition of the task's retries."""
    assert pages.will_pass(error) is again


def test_the_api_fails_by_its_seed() -> None:
    """The same requests fail in the same way each time."""
    first, second, other = server.seeded(0.3, 7), server.seeded(0.3, 7), server.seeded(0.3, 8)
    asked = [first(number, "/customers") for number in range(1, 201)]
    assert asked == [second(number, "/customers") for number in range(1, 201)]
    assert asked != [other(number, "/customers") for number in range(1, 201)]
    assert {"error", "busy", "stall", None} == set(asked)
    assert 40 < sum(one is not None for one in asked) < 80


class Between:
    """The flow between an API and a bucket that are in memory, at a time that only requests and changes move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, flow: ModuleType, customers: int = 10) -> None:
        self.now = NOW
        self.late = timedelta()
        self.customers = server.Customers(customers, 7, clock=lambda: self.now - self.late)
        self.kept: dict[str, bytes] = {}
        self.landed: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.asked: list[str] = []
        self.before_page: Callable[[], None] = lambda: None
        self._flow = flow
        bucket = SimpleNamespace(
            land=self._land, keep=self.kept.__setitem__, kept=self._kept, ObjectMissing=penstock.ObjectMissing
        )
        monkeypatch.setattr(flow, "penstock", bucket)
        monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger(__name__))
        monkeypatch.setattr(flow, "fetch", self._fetch)

    def sync(self) -> str:
        """One run; what it says of itself."""
        return str(self._flow.sync_customers.fn(API, 3, 10).message)

    def change(self, one: int, late: float = 0) -> None:
        """A customer changes, and bears a time so many seconds earlier, though none before its last change."""
        self.now += timedelta(seconds=1)
        before = [row["updated_at"] for row in self.customers.all() if row["id"] == one]
        since = self.now - max(map(datetime.fromisoformat, before), default=NOW)
        self.late = min(timedelta(seconds=late), since - timedelta(microseconds=1))
        self.customers.change([one], {"city": f"moved at {self.now}"})

    def table(self) -> list[dict[str, Any]]:
        """What merging all that has landed gives."""
        merged: dict[int, dict[str, Any]] = {}
        for body in self.landed.values():
            for row in json.loads(body)["customers"]:
                if row["updated_at"] >= merged.get(row["id"], row)["updated_at"]:
                    merged[row["id"]] = row
        return [merged[one] for one in sorted(merged)]

    def _fetch(self, address: str, etag: str | None, timeout: float) -> tuple[Any, bytes | None]:
        self.before_page()
        self.asked.append(address)
        at, self.now = self.now, self.now + REQUEST
        asked = dict(httpx.URL(address).params)
        since = asked.get("updated_since")
        found = self.customers.page(
            int(asked["limit"]), int(asked.get("after", 0)), datetime.fromisoformat(since) if since else None
        )
        body = json.dumps(found).encode()
        now = str(hash(body))
        made = answer(body=body, ETag=now)
        made.headers["Date"] = f"{at:%a, %d %b %Y %H:%M:%S} GMT"
        return (pages.Page(asked_at=at), None) if etag == now else (pages.read(made), body)

    def _land(self, key: str, body: bytes) -> bool:
        self.puts.append(key)
        was, self.landed[key] = self.landed.get(key), body
        return was != body

    def _kept(self, name: str) -> bytes:
        try:
            return self.kept[name]
        except KeyError:
            raise penstock.ObjectMissing(name) from None


def test_what_did_not_change_is_neither_sent_nor_landed_again(
    flows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a quiet API the first page is asked for, and is the same; after a change only that one is landed."""
    between = Between(monkeypatch, flows)
    assert between.sync() == "processed: 4 pages asked for, 4 new ones landed"
    assert between.sync() == "skipped: 1 pages asked for, 0 new ones landed"
    puts = len(between.puts)
    assert between.sync() == "skipped: 1 pages asked for, 0 new ones landed"
    assert len(between.puts) == puts, "answered with 304"
    between.change(5)
    assert between.sync() == "processed: 1 pages asked for, 1 new ones landed"
    assert between.sync() == "skipped: 1 pages asked for, 0 new ones landed", "the overlap brings it again"
    puts = len(between.puts)
    between.sync()
    assert len(between.puts) == puts
    assert between.table() == between.customers.all()


def test_a_run_that_dies_after_landing_costs_a_repetition(flows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is kept last: the next run asks for the same, lands nothing twice, and moves the mark."""
    between = Between(monkeypatch, flows)

    def dies(name: str, data: bytes) -> None:
        raise KeyboardInterrupt

    keep, flows.penstock.keep = flows.penstock.keep, dies
    with pytest.raises(KeyboardInterrupt):
        between.sync()
    flows.penstock.keep = keep
    assert between.sync() == "skipped: 4 pages asked for, 0 new ones landed"
    assert len(between.landed) == 4
    between.asked.clear()
    between.sync()
    assert len(between.asked) == 1, "the mark has moved"


def test_another_api_is_begun_from_its_beginning(flows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of one API says nothing of another."""
    between = Between(monkeypatch, flows)
    between.sync()
    between.kept = {name: data.replace(API.encode(), b"http://old.test") for name, data in between.kept.items()}
    monkeypatch.setattr(flows.penstock, "kept", between._kept)
    assert between.sync().startswith("skipped: 4 pages asked for")


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(0, int(pages.OVERLAP.total_seconds()) - 2)),
        max_size=12,
    ),
    dies_at=st.integers(0, 4),
)
def test_no_change_is_lost_whenever_it_is_made(
    flows: ModuleType, changes: list[tuple[int, int, int]], dies_at: int
) -> None:
    """Customers change, or come, before any request of several syncs, some with a time of before; one sync dies."""
    with pytest.MonkeyPatch.context() as patch:
        between = Between(patch, flows)
        asked = iter(range(10_000))

        def before_page() -> None:
            number = next(asked)
            for when, one, late in changes:
                if when == number:
                    between.change(one, late)
            if number == dies_at:
                raise KeyboardInterrupt

        between.before_page = before_page
        for _ in range(6):
            with suppress(KeyboardInterrupt):
                between.sync()
        between.before_page = lambda: None
        between.sync()
        assert between.table() == between.customers.all()
