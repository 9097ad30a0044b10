"""The ledger against a model of it: any order of arrivals, runs, deaths and relay passes keeps what must hold."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from penstock.declarations import Ready
from penstock.errors import LeaseLost
from penstock.ledger import states
from penstock.ledger.decide import together
from penstock.ledger.replay import Selection
from penstock.ledger.tables import leases
from penstock.ledger.waiting import MARKER
from penstock.model import Lease, ObjectRef, Outcome, State
from tests.conformance.ledgers import BACKENDS, MAKERS, TTL, Bench, declared
from tests.examples import examples

DATASETS = {
    "sales": declared("sales"),
    "logs": declared("logs", on_overwrite="append"),
    "once": declared("once", on_overwrite="ignore"),
    "days": declared("days", ready=Ready(beside=".done")),
}
# A database of its own for each example makes those on PostgreSQL dear.
FEW = {"sqlite": 15, "postgres": 5}
OPEN = {State.PENDING, State.CLAIMED}

names = st.sampled_from(sorted(DATASETS))
numbers = st.integers(0, 10**6)


class LedgerMachine(RuleBasedStateMachine):
    """Runs, sensors and relay at work. `owner` and `until` are the model of the leases, `claimed` of the claims."""

    backend: ClassVar[str]

    @initialize()
    def begin(self) -> None:
        """An empty ledger."""
        self.closing = ExitStack()
        folder = Path(self.closing.enter_context(TemporaryDirectory()))
        self.bench: Bench = self.closing.enter_context(MAKERS[self.backend](folder))
        self.stats: dict[tuple[str, str], str] = {}
        self.generations: set[tuple[str, str]] = set()
        self.was: dict[int, State] = {}
        self.leases: list[Lease] = []
        self.owner: dict[str, int] = {}
        self.failed: set[str] = set()
        self.until: dict[str, datetime] = {}
        self.hold: dict[str, datetime] = {}
        self.greatest: dict[str, int] = {}
        self.claimed: dict[int, tuple[str, int]] = {}
        self.refs: dict[int, ObjectRef] = {}

    def teardown(self) -> None:
        """At the end of every history the relay still finds all that is open."""
        if hasattr(self, "bench"):
            self.find()
            self.closing.close()

    # Sensors

    @rule(dataset=names, key=st.sampled_from("xy"), etag=st.sampled_from("abc"), versioned=st.booleans())
    def arrive(self, dataset: str, key: str, etag: str, versioned: bool) -> None:
        """An object is there, new or overwritten or as before."""
        name = f"{dataset}/{key}"
        before = self.bench.rows()
        count = self.bench.arrive(name, etag, dataset=DATASETS[dataset], version=etag if versioned else None)
        # A late hint for a version that `append` has already is none of what the key holds now.
        if count or DATASETS[dataset].on_overwrite != "append":
            self.stats[(dataset, name)] = etag
        self.generations.add((name, etag))
        waits = self.bench.ledger.arrivals.latest("landing", [name])[name].state is State.WAITING
        if count and not waits and not self.is_live(dataset) and not self.is_held(dataset):
            assert dataset in self.bench.woken()
        assert len(self.bench.rows()) >= len(before) + count

    @precondition(lambda self: self.stats)
    @rule(which=numbers)
    def arrive_again(self, which: int) -> None:
        """The same object is seen again: nothing happens, unless its generation ended unread."""
        (dataset, name), etag = sorted(self.stats.items())[which % len(self.stats)]
        latest = self.bench.ledger.arrivals.latest("landing", [name])[name]
        before = self.bench.everything()
        count = self.bench.arrive(name, etag, dataset=DATASETS[dataset])
        assert count == (latest.state in (State.MISSING, State.SUPERSEDED))
        if not count:
            assert self.bench.everything() == before

    @rule(key=st.sampled_from("xy"), etag=st.sampled_from("ab"))
    def mark(self, key: str, etag: str) -> None:
        """The sender says that an object is whole: what waited is pending, and woken for; nothing else moves."""
        before = {row.id: row.state for row in self.bench.rows()}
        name = f"days/{key}.done"
        assert self.bench.arrive(name, etag, dataset=DATASETS["days"]) == 0
        released = {row.id for row in self.bench.rows() if before.get(row.id, row.state) != row.state}
        assert {before[row_id] for row_id in released} <= {State.WAITING}
        assert all(row.state == State.PENDING for row in self.bench.rows() if row.id in released)
        assert not [row for row in self.bench.rows() if row.state == State.WAITING and row.waits_for == name]
        if released and not self.is_live("days") and not self.is_held("days"):
            assert "days" in self.bench.woken()

    @rule(name=st.sampled_from(["days/x", "days/y", "days/x.done", "days/y.done"]))
    def withdraw(self, name: str) -> None:
        """The sender removes an object or what said that it is whole: what no run had is missing, and waits no more."""
        had = {row.id for row in self.bench.rows() if row.run is not None}
        removals = self.bench.ledger.removals
        lost = removals.untried("landing", [name]).get(name, [])
        for ref in removals.record("landing", [name], [ref for ref in lost if ref.version_id is None]):
            assert ref.id not in had
        assert not [row for row in self.bench.rows() if row.key == name and row.state == State.WAITING]

    # Time

    @rule(seconds=st.sampled_from([0.5, 2, 20, 31, 90]))
    def wait(self, seconds: float) -> None:
        """Time passes; leases and back-offs run out."""
        self.bench.clock.forward(seconds)

    # Runs

    @rule(dataset=names)
    def acquire(self, dataset: str) -> None:
        """A run wants the lease; it gets it when nobody has it, or when it expired."""
        live, held_by = self.is_live(dataset), self.owner.get(dataset)
        lease = self.bench.ledger.work.acquire(dataset, holder="x", ttl=TTL)
        assert (lease is None) == live
        if lease is None:
            return
        assert lease.token > self.greatest.get(dataset, 0)
        assert lease.taken_over == (held_by is not None or dataset in self.failed)
        self.failed.discard(dataset)
        assert dataset not in self.bench.woken()
        self.leases.append(lease)
        self.greatest[dataset] = self.owner[dataset] = lease.token
        self.until[dataset] = lease.expires_at
        self.release(dataset)

    @precondition(lambda self: self.leases)
    @rule(which=numbers)
    def renew(self, which: int) -> None:
        """A heartbeat, by the holder or by one who lost it."""
        lease = self.lease(which)
        if self.lost(lease, lambda: self.bench.ledger.work.renew(lease, ttl=TTL)):
            return
        self.until[lease.dataset] = self.bench.clock.now + TTL
        assert lease.dataset not in self.bench.woken()

    @precondition(lambda self: self.leases)
    @rule(which=numbers, objects=st.integers(1, 3), size=st.sampled_from([1, 20, 1000]))
    def claim(self, which: int, objects: int, size: int) -> None:
        """A run claims; nothing that another has, nothing of another dataset, in order."""
        lease = self.lease(which)
        found: list[ObjectRef] = []
        pending = [row.id for row in self.bench.rows() if (row.dataset, row.state) == (lease.dataset, State.PENDING)]
        if self.lost(lease, lambda: found.extend(self.bench.claim(lease, objects=objects, size=size))):
            return
        assert len(found) <= objects
        assert [ref.id for ref in found] == pending[: len(found)]
        assert bool(found) == (bool(pending) and not self.is_held(lease.dataset))
        assert len(found) <= min([together(ref.attempts, objects) for ref in found], default=0)
        for ref in found:
            assert ref.id not in self.claimed
            self.claimed[ref.id] = (lease.dataset, lease.token)
            self.refs[ref.id] = ref

    @precondition(lambda self: self.leases)
    @rule(which=numbers, ends=st.lists(st.sampled_from(sorted(states.OUTCOMES)), min_size=1, max_size=3))
    def settle(self, which: int, ends: list[State]) -> None:
        """A run tells what became of some of its claim."""
        lease = self.lease(which)
        refs = self.mine(lease)[: len(ends)] or self.any_ref(lease.dataset)
        outcomes = [Outcome(ref=ref, state=end, reason=end.value) for ref, end in zip(refs, ends, strict=False)]
        mine = set(self.claimed)
        if self.lost(lease, lambda: self.bench.ledger.work.settle(lease, outcomes, run="r")):
            return
        now = {row.id: row.state for row in self.bench.rows()}
        for outcome in outcomes:
            if outcome.ref.id in mine and self.claimed[outcome.ref.id] == (lease.dataset, lease.token):
                assert now[outcome.ref.id] == outcome.state
                del self.claimed[outcome.ref.id]

    @precondition(lambda self: self.leases)
    @rule(which=numbers)
    def give_back(self, which: int) -> None:
        """A transient error: the claim goes back, the dataset is held, nothing is counted against the objects."""
        lease = self.lease(which)
        refs = self.mine(lease) or self.any_ref(lease.dataset)
        if not refs:
            return
        attempts = {row.id: row.attempts for row in self.bench.rows()}

        def step() -> None:
            self.bench.ledger.work.give_back(lease, refs, run="r", failed=refs[0], reason="away")

        if self.lost(lease, step):
            return
        for ref in refs:
            if self.claimed.get(ref.id) == (lease.dataset, lease.token):
                del self.claimed[ref.id]
        assert {row.id: row.attempts for row in self.bench.rows()} == attempts
        self.read_hold(lease.dataset)
        assert self.is_held(lease.dataset)

    @precondition(lambda self: self.leases)
    @rule(which=numbers, blame=st.booleans())
    def abandon(self, which: int, blame: bool) -> None:
        """A run fails and says so."""
        lease = self.lease(which)

        def step() -> None:
            self.bench.ledger.work.abandon(lease, reason="x", run="r", blame=blame)

        if self.lost(lease, step):
            return
        self.release(lease.dataset)
        del self.owner[lease.dataset]
        self.failed.add(lease.dataset)
        self.read_hold(lease.dataset)

    @precondition(lambda self: self.leases)
    @rule(which=numbers)
    def finish(self, which: int) -> None:
        """A run lets go; not while there is something that it could claim."""
        lease = self.lease(which)
        done: list[bool] = []
        if self.lost(lease, lambda: done.append(self.bench.ledger.work.finish(lease))):
            return
        pending = [row for row in self.bench.rows() if row.dataset == lease.dataset and row.state == State.PENDING]
        assert done == [not pending or self.is_held(lease.dataset)]
        if done[0]:
            del self.owner[lease.dataset]

    # People, and the comparison with the warehouse

    @rule(dataset=names, key=st.sampled_from("xy"), force=st.booleans())
    def replay(self, dataset: str, key: str, force: bool) -> None:
        """Somebody wants a key loaded again: what is moved is pending, untried, and woken for; a claim stays."""
        before = {row.id: row for row in self.bench.rows()}
        done = self.bench.ledger.replay.replay(
            Selection(keys=(f"{dataset}/{key}",)), datasets=list(DATASETS.values()), force=force, by="model"
        )
        moved = [row for row in self.bench.rows() if row.state != before[row.id].state]
        assert len(moved) == done.moved
        for row in moved:
            assert (row.state, row.attempts, row.hiccups) == (State.PENDING, 0, 0)
            assert before[row.id].state not in (State.CLAIMED, State.SUPERSEDED)
            assert force or before[row.id].state != State.LOADED
            assert before[row.id].state != State.LOADED or row.again
        if moved and not self.is_live(dataset) and not self.is_held(dataset):
            assert dataset in self.bench.woken()

    @rule(dataset=names, key=st.sampled_from("xy"))
    def drop(self, dataset: str, key: str) -> None:
        """Somebody does not want what is in quarantine: nothing else is touched."""
        before = {row.id: row.state for row in self.bench.rows()}
        self.bench.ledger.replay.drop(Selection(keys=(f"{dataset}/{key}",)), by="model")
        for row in self.bench.rows():
            assert row.state in (before[row.id], State.IGNORED)
            assert row.state == before[row.id] or before[row.id] == State.QUARANTINED

    @rule(dataset=names)
    def lose(self, dataset: str) -> None:
        """The warehouse lost everything of a dataset: all that was loaded is pending, over its own rows."""
        refs = self.bench.ledger.checked.loaded(dataset, after=0, limit=100)
        assert self.bench.ledger.checked.lost(refs, what="lost") == len(refs)
        ids = {ref.id for ref in refs}
        assert all(row.state == State.PENDING and row.again for row in self.bench.rows() if row.id in ids)

    # The relay

    @rule()
    def find(self) -> None:
        """After `find` everything open has a live lease, a back-off or a wake-up."""
        self.bench.ledger.wakeups.find()
        woken = self.bench.woken()
        for row in self.bench.rows():
            if row.state in OPEN:
                assert row.dataset in woken or self.is_live(row.dataset) or self.is_held(row.dataset)

    @rule(again=st.sampled_from([1, 15]))
    def take_due(self, again: int) -> None:
        """What is taken is not due at once again, and counts up."""
        before = {wakeup.id: wakeup.attempt for wakeup in self.bench.ledger.wakeups.outstanding()}
        for wakeup in self.bench.ledger.wakeups.take_due(again_after=timedelta(seconds=again)):
            assert wakeup.attempt == before[wakeup.id] + 1
        assert self.bench.ledger.wakeups.take_due(again_after=timedelta(seconds=again)) == []

    # What always holds

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every generation that was recorded has its row, numbered from 1 without a gap."""
        rows = self.bench.rows()
        assert {(row.key, row.etag) for row in rows} >= self.generations
        by_key: dict[str, list[int]] = {}
        for row in rows:
            by_key.setdefault(row.key, []).append(row.generation)
        assert all(found == list(range(1, len(found) + 1)) for found in by_key.values())

    @invariant()
    def states_move_legally(self) -> None:
        """From one step to the next a row stays, or moves as the table says; it never vanishes."""
        now = {row.id: State(row.state) for row in self.bench.rows()}
        for id, state in now.items():
            before = self.was.get(id)
            assert state in states.BIRTHS if before is None else state is before or state in states.MOVES[before]
        assert set(self.was) <= set(now)
        self.was = now

    @invariant()
    def a_claim_has_one_token(self) -> None:
        """What is claimed in the ledger is what the model says, by the same token."""
        found = {row.id: (row.dataset, row.claim_token) for row in self.bench.rows() if row.state == State.CLAIMED}
        assert found == self.claimed

    @invariant()
    def one_wakeup_for_a_dataset(self) -> None:
        """At most one wake-up for each dataset."""
        woken = self.bench.woken()
        assert len(woken) == len(set(woken))

    @invariant()
    def the_last_bytes_of_a_key_are_accounted_for(self) -> None:
        """The newest generation of a key is open, loaded, or says why it is not."""
        latest: dict[str, Any] = {}
        for row in self.bench.rows():
            latest[row.key] = row
        for row in latest.values():
            assert row.state in OPEN | {State.LOADED, State.WAITING} or row.reason
            if row.state == State.IGNORED and not row.reason.startswith(("dropped by", MARKER)):
                older = [r.state for r in self.bench.rows() if r.key == row.key and r.id != row.id]
                assert {State.PENDING, State.CLAIMED, State.LOADED, State.EMPTY, State.QUARANTINED} & set(older)

    @invariant()
    def nothing_waits_for_what_is_there(self) -> None:
        """What waits names its marker, and of that the newest generation is not there."""
        newest = {row.key: row.state for row in self.bench.rows()}
        for row in self.bench.rows():
            if row.state == State.WAITING:
                assert row.waits_for == f"{row.key}.done"
                assert newest.get(row.waits_for, State.MISSING) == State.MISSING

    # The model's own questions

    def lease(self, which: int) -> Lease:
        """The newest lease more often than the lost ones."""
        return self.leases[-1] if which % 2 else self.leases[(which // 2) % len(self.leases)]

    def is_live(self, dataset: str) -> bool:
        """Whether somebody holds it now."""
        return dataset in self.owner and self.until[dataset] > self.bench.clock.now

    def is_held(self, dataset: str) -> bool:
        """Whether a back-off runs."""
        return dataset in self.hold and self.hold[dataset] > self.bench.clock.now

    def read_hold(self, dataset: str) -> None:
        """Take the back-off from the ledger; it never ends earlier than the one before."""
        with self.bench.ledger.database.read() as connection:
            until = connection.execute(select(leases.c.hold_until).where(leases.c.dataset == dataset)).scalar_one()
        assert until >= self.hold.get(dataset, until)
        self.hold[dataset] = until

    def mine(self, lease: Lease) -> list[ObjectRef]:
        """What this lease has claimed."""
        mark = (lease.dataset, lease.token)
        return [self.refs[id] for id, owner in sorted(self.claimed.items()) if owner == mark]

    def any_ref(self, dataset: str) -> list[ObjectRef]:
        """Something of the dataset that was claimed once, whoever has it now."""
        return [ref for ref in self.refs.values() if ref.dataset == dataset][:1]

    def release(self, dataset: str) -> None:
        """The claims of the dataset end."""
        self.claimed = {id: owner for id, owner in self.claimed.items() if owner[0] != dataset}

    def lost(self, lease: Lease, step: Any) -> bool:
        """Take the step; whether the lease was lost, in which case nothing may have changed."""
        if self.owner.get(lease.dataset) == lease.token:
            step()
            return False
        before = self.bench.everything()
        with pytest.raises(LeaseLost):
            step()
        assert self.bench.everything() == before
        return True


@pytest.mark.hypothesis
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_order_of_events_keeps_what_must_hold(backend: str) -> None:
    """Whatever order sensors, runs, deaths and relay come in, nothing is lost and nothing is had by two."""
    machine = type("Machine", (LedgerMachine,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(FEW[backend]),
            stateful_step_count=40,
            deadline=None,
            # Without Phase.shrink, which takes minutes here; add it by hand to get a short history.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
