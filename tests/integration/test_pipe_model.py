"""The pipe against a model of it: any order of puts, deletes, hints, runs, deaths, replays and sweeps.

Several runs are at work at once, each at some step between claim and settle; they die, or sleep until their lease is
another's and then go on. Real store, real ledger, real DuckDB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from penstock.declarations import Dataset
from penstock.errors import LeaseLost
from penstock.flows.batch import Batch
from penstock.flows.verify import compare
from penstock.ledger.replay import Selection
from penstock.model import Lease, State
from penstock.sensors.sweep import Sweep
from tests.examples import examples
from tests.integration.parts import SALES, Parts, parts_in
from tests.integration.test_batch import TTL, Works, csv_of, works_on
from tests.real_store import RealStore, real_store

KEYS = ("sales/x.csv", "sales/y.csv")
STEPS = ("fetch", "check", "load", "settle")

HAPPENS = [
    *(["put"] * 4 + ["replay"] * 3 + ["start"] * 3 + ["go on"] * 7 + ["run"] * 3 + ["wait"] * 2),
    *("delete", "hint", "sweep", "compare", "die"),
]
keys = st.sampled_from(KEYS)
numbers = st.integers(0, 10**6)


@dataclass(kw_only=True)
class Run:
    """A run between two steps; without a batch it is about to claim."""

    lease: Lease
    batch: Batch | None = None
    next: int = 0


class PipeMachine(RuleBasedStateMachine):
    """`puts` are the ids of every content that a key ever had, in order; None where it was deleted."""

    server: ClassVar[RealStore]
    dataset: ClassVar[Dataset]

    @initialize()
    def begin(self) -> None:
        """An empty pipe."""
        self.closing = ExitStack()
        folder = Path(self.closing.enter_context(TemporaryDirectory()))
        self.parts: Parts = self.closing.enter_context(parts_in(folder, self.server, [self.dataset], fake_time=True))
        self.works: Works = works_on(self.parts, self.dataset)
        self.puts: dict[str, list[tuple[int, ...] | None]] = {key: [] for key in KEYS}
        self.runs: list[Run] = []
        self.count = 0

    def teardown(self) -> None:
        """Once everything has calmed down, each key's last content is in the table, once, and nothing else of it."""
        if not hasattr(self, "parts"):
            return
        try:
            self.sweep()
            for _ in range(12):
                self.wait(61)
                self.works.drain()
            self.the_last_content_is_there()
            self.the_ledger_tells_the_truth()
        finally:
            self.closing.close()

    @rule(what=st.sampled_from(HAPPENS), key=keys, which=numbers, some=st.integers(1, 5), flag=st.booleans())
    def happen(self, what: str, key: str, which: int, some: int, flag: bool) -> None:
        """Something happens: one rule, because with one for each Hypothesis leaves out most of them at a time."""
        match what:
            case "put":
                self.put(key, size=1 + some % 3, back=which % 4 == 0, told=flag)
            case "delete":
                self.delete(key)
            case "hint":
                self.hint(key)
            case "wait":
                self.wait(31 if flag else 1)
            case "sweep":
                self.sweep()
            case "replay":
                self.replay(key, force=flag)
            case "compare":
                self.compare()
            case "start":
                self.start()
            case "run":
                self.a_whole_run()
            case "go on":
                self.go_on(which, steps=some)
            case "die":
                self.die(which)

    def the_last_content_is_there(self) -> None:
        """Of each key that was not deleted: its last content, once; with `ignore` any one content."""
        rows = self.rows()
        for key, contents in self.puts.items():
            if not contents or contents[-1] is None:
                continue
            if self.dataset.on_overwrite == "replace":
                assert rows[key] == Counter(contents[-1]), (key, contents, self.parts.stories(key))
            elif self.dataset.on_overwrite == "append":
                assert rows[key] >= Counter(contents[-1]), (key, contents, self.parts.stories(key))
            else:
                assert rows[key], (key, contents, self.parts.stories(key))

    def the_ledger_tells_the_truth(self) -> None:
        """What it calls loaded has its marker and its rows, and nothing else has."""
        stories = [story for key in KEYS for story in self.parts.stories(key)]
        loaded = {story.name for story in stories if story.state is State.LOADED}
        assert self.works.warehouse.markers([story.name for story in stories]) == loaded
        assert {name for name, _ in self.table()} == loaded

    # The world outside

    def put(self, key: str, size: int, back: bool, told: bool) -> None:
        """A client puts new content, perhaps over old, or what the key held at first."""
        ids = tuple(range(self.count, self.count + size))
        self.count += size
        if back and self.puts[key] and self.dataset.on_overwrite != "append":
            ids = self.puts[key][0] or ids
        self.parts.put(key, csv_of(*ids))
        self.puts[key].append(ids)
        if told:
            self.hint(key)

    def delete(self, key: str) -> None:
        """A client deletes a key."""
        if self.puts[key] and self.puts[key][-1] is not None:
            self.parts.store._client.remove_object(self.parts.bucket, key)
            self.puts[key].append(None)

    def hint(self, key: str) -> None:
        """A notification, perhaps late, perhaps of nothing."""
        self.parts.record(key)

    def wait(self, seconds: int) -> None:
        """Time passes; leases and back-offs run out."""
        self.parts.clock.advance(seconds=seconds)

    def sweep(self) -> None:
        """The bucket is compared with the ledger."""
        Sweep(
            self.parts.bucket,
            store=self.parts.store,
            ledger=self.parts.ledger,
            landing=self.parts.landing,
            datasets=self.parts.datasets,
            clock=self.parts.clock,
        ).run_once()

    def replay(self, key: str, force: bool) -> None:
        """Somebody asks for a key to be loaded again."""
        self.parts.ledger.replay.replay(
            Selection(keys=(key,)), datasets=self.parts.datasets, force=force, by="the model"
        )

    # Runs

    def start(self) -> None:
        """A run begins, if the lease is to be had."""
        lease = self.parts.ledger.work.acquire("sales", holder=f"run {len(self.runs)}", ttl=TTL)
        if lease is not None:
            if lease.taken_over:
                self.works.warehouse.fence(lease.dataset, lease.token)
            self.runs.append(Run(lease=lease))

    def a_whole_run(self) -> None:
        """A run takes its way from beginning to end, if the lease is to be had."""
        before = len(self.runs)
        self.start()
        if len(self.runs) > before:
            while self.step(self.runs[-1]):
                pass
            del self.runs[-1]

    def go_on(self, which: int, steps: int) -> None:
        """A run takes some steps; one that lost its lease learns so and ends."""
        if not self.runs:
            return
        run = self.runs[which % len(self.runs)]
        try:
            for _ in range(steps):
                if not self.step(run):
                    self.runs.remove(run)
                    return
        except LeaseLost:
            self.runs.remove(run)

    def die(self, which: int) -> None:
        """A run is killed, and its lease runs out."""
        if not self.runs:
            return
        del self.runs[which % len(self.runs)]
        self.wait(31)

    def step(self, run: Run) -> bool:
        """One step; False when the run has ended."""
        if run.batch is None:
            refs = self.works.claim(run.lease)
            if not refs:
                return not self.parts.ledger.work.finish(run.lease)
            run.batch, run.next = self.works.batch(run.lease, refs), 0
            return True
        getattr(run.batch, STEPS[run.next])()
        run.next += 1
        if run.next == len(STEPS):
            run.batch = None
        return True

    # What always holds

    @invariant()
    def a_key_has_the_rows_of_one_content(self) -> None:
        """Never a mixture of two generations, never half of one, never a row twice; `append` adds up whole ones."""
        if not hasattr(self, "parts"):
            return
        for key, found in self.rows().items():
            contents = [Counter(ids) for ids in self.puts[key] if ids is not None]
            if self.dataset.on_overwrite == "append":
                assert all(content <= found or not content & found for content in contents), (key, found)
                assert set(found.values()) <= {1}, (key, found)
            else:
                assert found == Counter() or found in contents, (key, found)

    def compare(self) -> None:
        """The comparison with the warehouse finds no loss where there is none."""
        assert [one for one in compare(self.parts.ledger, self.works.warehouse) if one.lost] == []

    def rows(self) -> dict[str, Counter[int]]:
        """The ids in the table, by key."""
        found: dict[str, Counter[int]] = {key: Counter() for key in KEYS}
        for name, id in self.table():
            found[name.partition("/")[2].rpartition("@")[0]][id] += 1
        return found

    def table(self) -> list[tuple[str, int]]:
        """Object and id of every row."""
        if not self.works.warehouse.path.exists() or not self.works.warehouse.count("sales"):
            return []
        return self.works.rows("_penstock_object, id")


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.mark.hypothesis
@pytest.mark.parametrize("on_overwrite", ["replace", "append", "ignore"])
def test_any_order_of_events_loads_each_row_once(
    embedded: RealStore, on_overwrite: Literal["replace", "append", "ignore"]
) -> None:
    """Whatever order they come in, the last content of each key is in the table in the end, once and alone."""
    dataset = replace(SALES, on_overwrite=on_overwrite)
    machine = type("Machine", (PipeMachine,), {"server": embedded, "dataset": dataset})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(6),
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
