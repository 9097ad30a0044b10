"""The relay against a fake server, and Prefect's HTTP API against a fake transport."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import events
from penstock.bell import bell_path, listening, ring
from penstock.errors import PrefectFailed, PrefectRefused, PrefectUnavailable
from penstock.ledger import Ledger
from penstock.ledger.arrivals import Seen
from penstock.model import OutboxEvent, Via
from penstock.outbox.prefect_api import LARGEST_EVENT, PrefectApi, Reach
from penstock.outbox.relay import BATCH, DIRECT_AFTER, Pass, Relay, Server
from tests.conformance.ledgers import PROJECT, SALES, START, Bench, declared, sqlite_bench, stat
from tests.waiting import wait_for

UNANSWERED = 15
LONGEST = UNANSWERED * 16  # each attempt is waited for twice as long as the one before, up to this
READY = Reach(deployment="d1", automation="enabled")
AWAY = PrefectUnavailable("Prefect's server does not answer")


@dataclass(kw_only=True)
class FakeServer:
    """Keeps what was posted. `failure` is raised by every call while set, `refuses` names events it never takes.

    `answers` makes a waiting run of each wake-up event and each direct run, as the real one does.
    """

    reached: Reach = READY
    failure: Exception | None = None
    refuses: Callable[[OutboxEvent], bool] = lambda event: False
    on_post: Callable[[], None] = lambda: None
    posts: list[list[OutboxEvent]] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    run_failure: Exception | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    answers: bool = False
    queued: list[str] = field(default_factory=list)
    count_failure: Exception | None = None

    def post_events(self, found: list[OutboxEvent]) -> None:
        """See `Server`."""
        self._fail()
        if any(self.refuses(event) for event in found):
            raise PrefectRefused("Prefect's server answered 422 to POST /api/events")
        self.posts.append(list(found))
        if self.answers:
            woken = [event for event in found if event.name == events.DATASET_PENDING]
            self.queued += [events.deployment_name(PROJECT, event.payload["dataset"]) for event in woken]
        self.on_post()

    def reach(self, *, flow: str, deployment: str) -> Reach:
        """See `Server`."""
        self._fail()
        self.asked.append((flow, deployment))
        return self.reached

    def create_run(self, deployment_id: str, *, idempotency_key: str, reason: str) -> str:
        """See `Server`."""
        self._fail()
        if self.run_failure is not None:
            raise self.run_failure
        return self.runs.setdefault(idempotency_key, f"run {len(self.runs) + 1}")

    def waiting(self, *, flow: str, deployment: str, now: datetime) -> int:
        """See `Server`."""
        self._fail()
        if self.count_failure is not None:
            raise self.count_failure
        return self.queued.count(deployment)

    @property
    def events(self) -> list[OutboxEvent]:
        """Everything posted, in order."""
        return [event for post in self.posts for event in post]

    @property
    def woken(self) -> list[OutboxEvent]:
        """The wake-ups among it."""
        return [event for event in self.events if event.name == events.DATASET_PENDING]

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with sqlite_bench(tmp_path) as made:
        yield made


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def relay_of(bench: Bench, server: Server) -> Relay:
    return Relay(
        bench.ledger, server, project=PROJECT, unanswered_after=timedelta(seconds=UNANSWERED), clock=bench.clock
    )


@pytest.fixture
def relay(bench: Bench, server: FakeServer) -> Relay:
    return relay_of(bench, server)


def test_the_flow_that_consumes_a_dataset_is_asked_for(bench: Bench, server: FakeServer) -> None:
    """Where a flow of the project's own takes what is new, it is its deployment that is looked for and run."""
    relay = Relay(
        bench.ledger,
        server,
        project=PROJECT,
        unanswered_after=timedelta(seconds=UNANSWERED),
        clock=bench.clock,
        consumers={"sales": "analyse"},
    )
    bench.arrive("sales/1")
    unanswered(bench, relay)
    relay.run_once()
    assert set(server.asked) == {("analyse", f"{PROJECT}.sales")}


def unanswered(bench: Bench, relay: Relay, times: int = DIRECT_AFTER) -> None:
    """Send the wake-up so often, and let the answer's time pass after each."""
    for _ in range(times):
        assert relay.run_once().wakeups == 1
        bench.clock.forward(LONGEST)


def note(bench: Bench) -> str | None:
    (wakeup,) = bench.ledger.wakeups.outstanding()
    return wakeup.note


class TestOrder:
    """What goes first."""

    def test_wakeups_go_before_a_long_outbox(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """The first thing that is posted is the wake-up, however much waits in the outbox."""
        for n in range(BATCH + 5):
            bench.arrive(f"sales/{n}")
        assert relay.run_once() == Pass(wakeups=1, events=BATCH + 5)
        assert [event.name for event in server.posts[0]] == [events.DATASET_PENDING]
        assert [len(post) for post in server.posts] == [1, BATCH, 5]
        assert bench.ledger.outbox.count() == 0

    def test_a_wakeup_that_comes_meanwhile_goes_between_two_batches(
        self, bench: Bench, relay: Relay, server: FakeServer
    ) -> None:
        """While a long outbox is sent a new wake-up waits for one batch, not for all of them."""
        for n in range(BATCH + 5):
            bench.arrive(f"sales/{n}")

        def arrive() -> None:
            if len(server.posts) == 2:
                bench.arrive("others/1", dataset=declared("others"))

        server.on_post = arrive
        relay.run_once()
        assert [event.payload["dataset"] for event in server.woken] == ["sales", "others"]
        assert [event.name for event in server.posts[2]] == [events.DATASET_PENDING]

    def test_a_wakeup_names_its_dataset_and_attempt(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """The event's resource is the dataset's, which is what automations match."""
        bench.arrive("sales/1")
        relay.run_once()
        (woken,) = server.woken
        assert woken.resource == events.dataset_resource(PROJECT, "sales")
        assert woken.payload["attempt"] == 1
        assert woken.occurred_at == START

    def test_nothing_to_do_is_nothing_done(self, relay: Relay, server: FakeServer) -> None:
        """With an empty ledger nothing is posted."""
        assert relay.run_once() == Pass()
        assert server.posts == []


class TestServerDown:
    """While Prefect is away."""

    def test_nothing_is_marked_and_no_attempt_counts(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """While the server is away nothing leaves the outbox and no wake-up comes nearer to its direct run."""
        bench.arrive("sales/1")
        server.failure = AWAY
        for _ in range(10):
            with pytest.raises(PrefectUnavailable):
                relay.run_once()
            bench.clock.forward(2)
        assert bench.ledger.outbox.count() == 1
        assert [wakeup.attempt for wakeup in bench.ledger.wakeups.outstanding()] == [0]
        server.failure = None
        assert relay.run_once() == Pass(wakeups=1, events=1)
        assert [event.payload["attempt"] for event in server.woken] == [1]

    def test_a_crash_between_post_and_mark_sends_the_same_id_again(
        self, bench: Bench, relay: Relay, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An event that was posted but not marked is posted again under the same id, which is the same event."""
        bench.arrive("sales/1")
        with monkeypatch.context() as patched:
            patched.setattr(bench.ledger.outbox, "sent", _crash)
            with pytest.raises(ZeroDivisionError):
                relay.run_once()
        relay.run_once()
        first, second = [event.id for event in server.events if event.name == events.OBJECT_ARRIVED]
        assert first == second
        assert len(server.woken) == 1

    def test_the_loop_goes_on_when_the_server_is_back(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """The loop survives an absence, says so once, and sends what gathered meanwhile."""
        caplog.set_level(logging.INFO, "penstock.outbox.relay")
        bench.arrive("sales/1")
        failed = threading.Semaphore(0)

        class Away(PrefectUnavailable):
            def __init__(self) -> None:
                super().__init__("away")
                failed.release()

        class Server(FakeServer):
            def _fail(self) -> None:
                if self.failure is not None:
                    raise Away

        away = Server(failure=AWAY)
        relay = Relay(
            bench.ledger,
            away,
            project=PROJECT,
            unanswered_after=timedelta(seconds=UNANSWERED),
            retry_after=timedelta(milliseconds=1),
        )
        stop = threading.Event()
        thread = threading.Thread(
            target=relay.run, args=(stop,), kwargs={"interval": timedelta(milliseconds=1), "monotonic": time.monotonic}
        )
        thread.start()
        try:
            for _ in range(3):
                assert failed.acquire(timeout=30)
            away.failure = None
            bench.clock.forward(1)  # what was not sent is due again
            wait_for(lambda: away.woken and not bench.ledger.outbox.count(), what="all is sent")
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    def test_an_arrival_rings_and_is_sent_at_once(self, tmp_path: Path, server: FakeServer) -> None:
        """The loop does not wait for its next look, a minute away, when an arrival is recorded."""
        path = bell_path(tmp_path)
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", project=PROJECT, ring=partial(ring, path))
        ledger.migrate(lock_folder=tmp_path)
        relay = Relay(ledger, server, project=PROJECT, unanswered_after=timedelta(seconds=UNANSWERED))
        stop, looked = threading.Event(), threading.Event()

        def wait_after_a_look(seconds: float) -> bool:
            looked.set()
            return wait(seconds)

        with listening(path) as wait:
            how = {"interval": timedelta(minutes=1), "monotonic": lambda: 0.0, "wait": wait_after_a_look}
            thread = threading.Thread(target=relay.run, args=(stop,), kwargs=how)
            thread.start()
            try:
                assert looked.wait(30)
                ledger.arrivals.record([Seen(stat=stat("sales/1"), dataset=SALES)], Via.BUCKET)
                wait_for(lambda: server.woken, what="the wake-up is sent")
            finally:
                stop.set()
                ring(path)
                thread.join(30)
                ledger.close()
        assert not thread.is_alive()

    def test_other_events_wait_for_a_wake_up_but_not_for_ever(
        self, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a wake-up other events are quiet for a moment; they get their turn though wake-ups never cease."""
        now, stop = 0.0, threading.Event()
        passes: list[tuple[float, bool]] = []

        def run_once(*, events: bool = True) -> Pass:
            nonlocal now
            passes.append((now, events))
            now += 0.02
            if now > 5:
                stop.set()
            return Pass(wakeups=1)

        monkeypatch.setattr(relay, "run_once", run_once)
        monkeypatch.setattr("penstock.outbox.relay._BREATH_SECONDS", 0)
        relay.run(stop, find_every=timedelta(hours=1), monotonic=lambda: now)
        turns = [at for at, events in passes if events]
        assert turns[0] >= 0.2
        assert max(later - earlier for earlier, later in pairwise([0.0, *turns])) < 0.6

    def test_the_loop_finds_what_nobody_asked_for(self, bench: Bench, server: FakeServer) -> None:
        """The loop wakes a run for a dataset whose holder died, with no arrival to cause it."""
        bench.arrive("sales/1")
        bench.claim(bench.take())
        bench.clock.forward(30)
        stop = threading.Event()
        server.on_post = stop.set
        relay_of(bench, server).run(stop, monotonic=lambda: 0.0)
        assert [event.payload["dataset"] for event in server.woken] == ["sales"]


def _crash(*args: object) -> None:
    raise ZeroDivisionError


class TestRefusals:
    """What Prefect never takes."""

    def test_one_event_that_is_never_taken_holds_up_no_other(
        self, bench: Bench, relay: Relay, server: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An event that the server refuses is dropped and logged; those beside it arrive."""
        for n in range(5):
            bench.arrive(f"sales/{n}")
        server.refuses = lambda event: event.payload.get("keys") == ["sales/2"]
        relay.run_once()
        arrived = [event.payload["keys"] for event in server.events if event.name == events.OBJECT_ARRIVED]
        assert arrived == [["sales/0"], ["sales/1"], ["sales/3"], ["sales/4"]]
        assert bench.ledger.outbox.count() == 0
        assert "dropped" in caplog.text

    def test_a_run_that_is_refused_holds_up_no_other(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """When a deployment takes no run, `status` says so, and the other datasets' wake-ups and events go out."""
        bench.arrive("sales/1")
        unanswered(bench, relay)
        server.run_failure = PrefectRefused("Prefect's server answered 409 to POST /x")
        bench.arrive("others/1", dataset=declared("others"))
        assert relay.run_once() == Pass(wakeups=2, events=1)
        assert server.woken[-1].payload["dataset"] == "others"
        notes = {wakeup.dataset: wakeup.note for wakeup in bench.ledger.wakeups.outstanding()}
        assert notes == {"sales": "Prefect's server answered 409 to POST /x", "others": None}


class TestUnanswered:
    """Wake-ups that no run answers."""

    def test_it_is_sent_again_under_a_new_id(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """A wake-up that no run answers is another event each time, and not before its time."""
        bench.arrive("sales/1")
        relay.run_once()
        bench.clock.forward(UNANSWERED - 0.001)
        assert relay.run_once().wakeups == 0
        bench.clock.forward(0.001)
        assert relay.run_once().wakeups == 1
        assert [event.payload["attempt"] for event in server.woken] == [1, 2]
        assert len({event.id for event in server.woken}) == 2

    def test_a_taken_lease_answers_it(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """Once a run has the lease nothing is sent any more."""
        bench.arrive("sales/1")
        relay.run_once()
        bench.take()
        bench.clock.forward(UNANSWERED)
        assert relay.run_once().wakeups == 0

    def test_after_three_the_run_is_created_directly(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """The fourth attempt is a run of the dataset's deployment, and `status` can say so."""
        bench.arrive("sales/1")
        unanswered(bench, relay)
        assert relay.run_once() == Pass(wakeups=1, direct=1)
        assert server.asked == [("ingest", "p.sales")]
        assert list(server.runs.values()) == ["run 1"]
        assert len(server.woken) == DIRECT_AFTER
        assert "run 1" in (note(bench) or "")

    def test_direct_runs_do_not_pile_up(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """While no worker takes them, direct runs come ever more rarely, but they go on."""
        bench.arrive("sales/1")
        unanswered(bench, relay)
        times = []
        for second in range(0, 3600, UNANSWERED):
            if relay.run_once().direct:
                times.append(second)
            bench.clock.forward(UNANSWERED)
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses == sorted(pauses)
        assert (pauses[0], set(pauses[1:])) == (LONGEST / 2, {LONGEST})
        assert len(times) > 10

    def test_the_same_attempt_twice_is_one_run(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """A direct run whose answer was lost is asked for again under the same key."""
        bench.arrive("sales/1")
        unanswered(bench, relay)
        create = server.create_run

        def answer_lost(deployment_id: str, *, idempotency_key: str, reason: str) -> str:
            create(deployment_id, idempotency_key=idempotency_key, reason=reason)
            raise AWAY

        server.create_run = answer_lost  # type: ignore[method-assign]
        with pytest.raises(PrefectUnavailable):
            relay.run_once()
        server.create_run = create  # type: ignore[method-assign]
        bench.clock.forward(2)
        assert relay.run_once().direct == 1
        assert len(server.runs) == 1

    @pytest.mark.parametrize(
        ("reached", "says"),
        [
            (Reach(deployment="d1", automation="paused"), "paused"),
            (Reach(deployment="d1", automation="none"), "no automation.*penstock apply"),
            (Reach(deployment="d1", automation="scheduled"), "no automation.*the next run of its schedule"),
            (Reach(deployment=None, automation="none"), "ingest/p.sales does not exist.*penstock apply"),
        ],
    )
    def test_not_when_it_was_stopped_on_purpose(
        self,
        bench: Bench,
        relay: Relay,
        server: FakeServer,
        caplog: pytest.LogCaptureFixture,
        reached: Reach,
        says: str,
    ) -> None:
        """A paused or missing automation, or a missing deployment, gets no run; the note and one warning say why."""
        bench.arrive("sales/1")
        unanswered(bench, relay)
        server.reached = reached
        for _ in range(3):
            assert relay.run_once() == Pass(wakeups=1)
            bench.clock.forward(LONGEST)
        assert server.runs == {}
        assert re.search(says, note(bench) or "")
        assert len([record for record in caplog.records if "waits" in record.message]) == 1
        server.reached = READY
        assert relay.run_once().direct == 1

    def test_what_was_sent_is_not_taken_back_when_a_later_call_fails(
        self, bench: Bench, relay: Relay, server: FakeServer
    ) -> None:
        """When the server goes away after the wake-up events were posted, only the direct run is tried again."""
        bench.arrive("sales/1")
        unanswered(bench, relay)
        bench.arrive("others/1", dataset=declared("others"))

        def go_away() -> None:
            server.failure = AWAY

        server.on_post = go_away
        with pytest.raises(PrefectUnavailable):
            relay.run_once()
        attempts = {wakeup.dataset: wakeup.attempt for wakeup in bench.ledger.wakeups.outstanding()}
        assert attempts == {"sales": DIRECT_AFTER, "others": 1}


class TestNoStampede:
    """What gathers while there is no worker, or no server."""

    def test_with_no_worker_for_an_hour_one_run_waits_for_each_dataset(
        self, bench: Bench, relay: Relay, server: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """While a run waits for a worker no other is made, `status` says why, and one warning does."""
        server.answers = True
        for second in range(0, 3600, UNANSWERED):
            bench.arrive(f"sales/{second}")
            bench.arrive(f"others/{second}", dataset=declared("others"))
            relay.run_once()
            bench.clock.forward(UNANSWERED)
        assert sorted(server.queued) == ["p.others", "p.sales"]
        assert server.runs == {}
        assert {wakeup.note for wakeup in bench.ledger.wakeups.outstanding()} == {
            "a run waits for a worker; is one running? penstock worker"
        }
        assert len([record for record in caplog.records if "waits for a worker" in record.message]) == 2

    def test_when_the_waiting_run_is_gone_the_wakeup_is_sent_at_once(
        self, bench: Bench, relay: Relay, server: FakeServer
    ) -> None:
        """A waiting run that was deleted, or died, does not leave its dataset with a long pause or a wrong count."""
        bench.arrive("sales/1")
        server.answers = True
        relay.run_once()
        for _ in range(50):
            bench.clock.forward(UNANSWERED)
            assert relay.run_once() == Pass()
        assert "waits for a worker" in (note(bench) or "")
        server.queued.clear()
        bench.clock.forward(UNANSWERED)
        assert relay.run_once() == Pass(wakeups=1)
        assert [event.payload["attempt"] for event in server.woken] == [1, 2]
        assert note(bench) is None, "no run waits any more"

    def test_with_no_server_for_an_hour_one_wakeup_waits_for_each_dataset(
        self, bench: Bench, relay: Relay, server: FakeServer
    ) -> None:
        """What arrived in an hour without a server is one wake-up for each dataset when it is back."""
        server.answers = True
        server.failure = AWAY
        for second in range(0, 3600, 10):
            bench.arrive(f"sales/{second}")
            bench.arrive(f"others/{second}", dataset=declared("others"))
            with pytest.raises(PrefectUnavailable):
                relay.run_once()
            bench.clock.forward(10)
        server.failure = None
        assert relay.run_once() == Pass(wakeups=2, events=720)
        bench.clock.forward(UNANSWERED)
        assert relay.run_once() == Pass()
        assert sorted(server.queued) == ["p.others", "p.sales"]

    def test_a_server_that_cannot_count_gets_the_wakeup(self, bench: Bench, relay: Relay, server: FakeServer) -> None:
        """Where the question fails the wake-up is sent: one run too many is better than none."""
        bench.arrive("sales/1")
        relay.run_once()
        server.count_failure = PrefectFailed("Prefect's server answered 500 to POST /api/flow_runs/count")
        bench.clock.forward(UNANSWERED)
        assert relay.run_once() == Pass(wakeups=1)

    def test_what_is_new_goes_before_questions_about_what_is_old(
        self, bench: Bench, relay: Relay, server: FakeServer
    ) -> None:
        """A first wake-up is posted even when the server goes away over the question about another dataset."""
        bench.arrive("sales/1")
        relay.run_once()
        bench.clock.forward(UNANSWERED)
        bench.arrive("others/1", dataset=declared("others"))
        server.count_failure = AWAY
        with pytest.raises(PrefectUnavailable):
            relay.run_once()
        attempts = {wakeup.dataset: wakeup.attempt for wakeup in bench.ledger.wakeups.outstanding()}
        assert attempts == {"sales": 1, "others": 1}
        assert server.woken[-1].payload["dataset"] == "others"

    def test_one_dataset_that_the_server_fails_at_holds_up_no_other(
        self, bench: Bench, relay: Relay, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An error 500 for one dataset's run stops neither the other datasets' runs nor the outbox."""
        bench.arrive("sales/1")
        bench.arrive("others/1", dataset=declared("others"))
        for _ in range(DIRECT_AFTER):
            assert relay.run_once().wakeups == 2
            bench.clock.forward(LONGEST)
        create = server.create_run
        calls: list[str] = []

        def fail_first(deployment_id: str, *, idempotency_key: str, reason: str) -> str:
            calls.append(idempotency_key)
            if len(calls) == 1:
                raise PrefectFailed("Prefect's server answered 500 to POST /x")
            return create(deployment_id, idempotency_key=idempotency_key, reason=reason)

        monkeypatch.setattr(server, "create_run", fail_first)
        bench.arrive("more/1", dataset=declared("more"))
        assert relay.run_once() == Pass(wakeups=3, direct=1, events=1)
        notes = {wakeup.dataset: wakeup.note for wakeup in bench.ledger.wakeups.outstanding()}
        assert notes["sales"] == "Prefect's server answered 500 to POST /x"
        bench.clock.forward(UNANSWERED)
        relay.run_once()
        assert calls.count(calls[0]) == 2, "the same attempt, under the same key"


def test_two_relays_send_each_attempt_once(bench: Bench, server: FakeServer) -> None:
    """Two relays that pass at the same time send each attempt once, whether new or sent again."""
    for n in range(20):
        name = f"set{n}"
        bench.ledger.arrivals.record([Seen(stat=stat(f"{name}/1"), dataset=declared(name))], Via.BUCKET)
    second = bench.open()
    both = [
        Relay(ledger, server, project=PROJECT, unanswered_after=timedelta(seconds=UNANSWERED))
        for ledger in (bench.ledger, second)
    ]
    for attempt in range(1, 4):
        with ThreadPoolExecutor(2) as pool:
            passes = list(pool.map(Relay.run_once, both))
        assert sum(one.wakeups for one in passes) == 20
        assert len({event.id for event in server.woken}) == len(server.woken) == 20 * attempt
        bench.clock.forward(LONGEST)
    second.close()
    ids = [event.id for event in server.events if event.name == events.OBJECT_ARRIVED]
    assert len(set(ids)) == 20


# Prefect's HTTP API

Handler = Callable[[httpx.Request], httpx.Response]


def api(handler: Handler, auth: str = "") -> PrefectApi:
    return PrefectApi("http://prefect.test/api", auth, transport=httpx.MockTransport(handler))


def event(payload: dict[str, Any], row: int = 1) -> OutboxEvent:
    return OutboxEvent(
        row=row,
        id=f"id{row}",
        name="penstock.x",
        resource=events.dataset_resource(PROJECT, "sales"),
        related=[],
        payload=payload,
        occurred_at=START,
    )


def automation(deployment: str | None, *, enabled: bool = True, does: str = "run-deployment") -> dict[str, Any]:
    return {"enabled": enabled, "actions": [{"type": does, "deployment_id": deployment}]}


class TestPrefectApi:
    """The calls, and what each answer means."""

    def test_the_real_one_is_a_server(self) -> None:
        """`PrefectApi` and the fake are what the relay asks for."""
        real: Server = api(lambda request: httpx.Response(204))
        fake: Server = FakeServer()
        for name in ("post_events", "reach", "create_run", "waiting"):
            assert callable(getattr(real, name))
            assert callable(getattr(fake, name))

    def test_events_are_posted_as_prefect_reads_them(self) -> None:
        """One request with all events, under the API's path, with the credentials."""
        seen: list[httpx.Request] = []

        def handler(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(204)

        api(handler, "user:pass").post_events([event({"n": 1}), event({"n": 2}, row=2)])
        (request,) = seen
        assert (request.method, str(request.url)) == ("POST", "http://prefect.test/api/events")
        assert request.headers["authorization"] == "Basic dXNlcjpwYXNz"
        sent = json.loads(request.content)
        assert [one["id"] for one in sent] == ["id1", "id2"]
        assert sent[0] == {
            "id": "id1",
            "occurred": "2026-03-01T12:00:00+00:00",
            "event": "penstock.x",
            "resource": events.dataset_resource(PROJECT, "sales"),
            "related": [],
            "payload": {"n": 1},
        }

    @pytest.mark.parametrize("text", ["x" * LARGEST_EVENT, "ä" * (LARGEST_EVENT // 2)])
    def test_a_payload_that_prefect_would_drop_is_replaced(self, text: str) -> None:
        """A payload over the limit goes out as a hint, so that the event itself arrives."""
        sizes: list[int] = []

        def handler(request: httpx.Request) -> httpx.Response:
            sizes.append(len(request.content))
            assert "penstock why" in json.loads(request.content)[0]["payload"]["penstock"]
            return httpx.Response(204)

        api(handler).post_events([event({"reason": text})])
        assert sizes[0] < 1000

    @pytest.mark.parametrize(
        ("automations", "expected"),
        [
            ([], "none"),
            ([automation("other"), automation(None)], "none"),
            ([automation("d1", does="pause-deployment")], "none"),
            ([automation("d1", enabled=False)], "paused"),
            ([automation("d1", enabled=False), automation("d1")], "enabled"),
            ([automation("other")] * 400 + [automation("d1")], "enabled"),
            ([automation("other")] * 200, "none"),
        ],
    )
    def test_every_page_of_automations_is_read(self, automations: list[dict[str, Any]], expected: str) -> None:
        """The automation that runs the deployment is found on whichever page it is."""

        def handler(request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                assert request.url.path == "/api/deployments/name/ingest/p.sales"
                return httpx.Response(200, json={"id": "d1", "paused": False, "schedules": []})
            asked = json.loads(request.content)
            return httpx.Response(200, json=automations[asked["offset"] : asked["offset"] + asked["limit"]])

        found = api(handler).reach(flow="ingest", deployment="p.sales")
        assert found == Reach(deployment="d1", automation=expected)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("paused", "active", "expected"),
        [(False, [False, True], "scheduled"), (False, [False], "none"), (True, [True], "none")],
    )
    def test_a_deployment_that_time_runs(self, paused: bool, active: list[bool], expected: str) -> None:
        """Without an automation, a schedule that is active runs it, unless the deployment is paused."""

        def handler(request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                schedules = [{"active": one} for one in active]
                return httpx.Response(200, json={"id": "d1", "paused": paused, "schedules": schedules})
            return httpx.Response(200, json=[])

        found = api(handler).reach(flow="ingest", deployment="p.sales")
        assert found == Reach(deployment="d1", automation=expected)  # type: ignore[arg-type]

    def test_a_deployment_that_is_not_there(self) -> None:
        """404 for the deployment is an answer, not an error."""
        found = api(lambda request: httpx.Response(404)).reach(flow="ingest", deployment="p.x")
        assert found == Reach(deployment=None, automation="none")

    def test_a_run_is_created_with_its_key(self) -> None:
        """The idempotency key and the reason go along, and the run's id comes back."""

        def handler(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/api/deployments/d1/create_flow_run"
            sent = json.loads(request.content)
            assert sent["idempotency_key"] == "k"
            assert sent["state"] == {"type": "SCHEDULED", "message": "no answer"}
            return httpx.Response(201, json={"id": "r1"})

        assert api(handler).create_run("d1", idempotency_key="k", reason="no answer") == "r1"

    def test_runs_that_wait_are_counted(self) -> None:
        """Runs that wait for a worker count; what is planned for later, or lost since long ago, is not asked for."""
        asked: list[dict[str, Any]] = []

        def handler(request: httpx.Request) -> httpx.Response:
            assert (request.method, request.url.path) == ("POST", "/api/flow_runs/count")
            asked.append(json.loads(request.content))
            return httpx.Response(200, json=len(asked))

        assert api(handler).waiting(flow="ingest", deployment="p.sales", now=START) == 3
        scheduled, pending = (sent["flow_runs"] for sent in asked)
        assert asked[0]["flows"] == {"name": {"any_": ["ingest"]}}
        assert asked[0]["deployments"] == {"name": {"any_": ["p.sales"]}}
        assert scheduled["state"] == {"type": {"any_": ["SCHEDULED"]}}
        assert scheduled["expected_start_time"] == {
            "after_": "2026-03-01T11:00:00+00:00",
            "before_": "2026-03-01T12:00:00+00:00",
        }
        assert pending["state"] == {"type": {"any_": ["PENDING"]}}

    @pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503])
    def test_an_error_of_the_server_is_for_later(self, status: int) -> None:
        """What may be different later is PrefectFailed, which says that the server is there, and not a refusal."""
        with pytest.raises(PrefectFailed, match=f"{status} to POST /api/events") as raised:
            api(lambda request: httpx.Response(status, text="secret details")).post_events([event({})])
        assert not isinstance(raised.value, PrefectRefused)
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize("status", [400, 409, 413, 422])
    def test_what_the_server_never_takes_is_a_refusal(self, status: int) -> None:
        """An answer that blames the request is PrefectRefused."""
        with pytest.raises(PrefectRefused, match=str(status)):
            api(lambda request: httpx.Response(status)).post_events([event({})])

    @pytest.mark.parametrize(
        "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("gone")]
    )
    def test_no_answer_is_unavailable(self, error: Exception) -> None:
        """A broken or silent connection is PrefectUnavailable, and the health check is then False."""

        def handler(request: httpx.Request) -> httpx.Response:
            raise error

        with pytest.raises(PrefectUnavailable, match="does not answer") as raised:
            api(handler).post_events([event({})])
        assert not isinstance(raised.value, PrefectFailed)
        assert not api(handler).is_up()

    def test_a_page_that_is_no_api_is_unavailable(self) -> None:
        """An address that answers with a web page (the user interface) is named, not a crash of the relay."""
        page = api(lambda request: httpx.Response(200, text="<html>"))
        with pytest.raises(PrefectUnavailable, match="PENSTOCK_PREFECT_API_URL"):
            page.post_events([event({})])
        assert not page.is_up()
        assert api(lambda request: httpx.Response(200, json=True)).is_up()

    @pytest.mark.parametrize("answer", [None, [], {}, "x", 7])
    def test_an_answer_of_another_shape_is_unavailable(self, answer: Any) -> None:
        """JSON that is not what Prefect says is PrefectUnavailable too."""
        strange = api(lambda request: httpx.Response(200, json=answer))
        with pytest.raises(PrefectUnavailable):
            strange.create_run("d1", idempotency_key="k", reason="")
        with pytest.raises(PrefectUnavailable):
            strange.reach(flow="ingest", deployment="p.x")
        if answer != 7:
            with pytest.raises(PrefectUnavailable):
                strange.waiting(flow="ingest", deployment="p.x", now=START)


def test_sales_is_what_the_bench_records(bench: Bench) -> None:
    """The bench's default dataset is the one whose wake-ups these tests look for."""
    bench.arrive("sales/1")
    assert bench.woken() == [SALES.name]
