"""Every way of writing against a model of it, over any history of loads, replays and faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import faults
from penstock.formats.result import REJECTED
from penstock.model import ObjectRef
from penstock.warehouse.base import LoadPart, Write
from tests.conformance.warehouses import MAKERS, NOW, WarehouseBench
from tests.examples import examples

COLUMNS = (("a", "BIGINT"), ("b", "VARCHAR"), ("v", "VARCHAR"))
WRITES = (
    Write(),
    Write(key=("a",)),
    Write(key=("a", "b")),
    Write(key=("a",), order_by="v"),
    Write(partitions=("b",)),
    Write(partitions=("a", "b")),
)
_numbers = count(1)

Row = tuple[int | None, str | None, str | None]


@pytest.fixture(scope="module", params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarehouseBench]:
    with MAKERS[request.param](tmp_path_factory.mktemp("model")) as made:
        yield made


@dataclass(frozen=True)
class Part:
    """An object as it is read now: good rows and rejected ones by their number."""

    ref: ObjectRef
    good: dict[int, Row]
    rejected: frozenset[int]
    how: str

    def loaded(self) -> LoadPart:
        """As the warehouse takes it."""
        rows = pa.table(
            {
                "a": pa.array([row[0] for row in self.good.values()], pa.int64()),
                "b": pa.array([row[1] for row in self.good.values()], pa.string()),
                "v": pa.array([row[2] for row in self.good.values()], pa.string()),
                "_penstock_row": pa.array(self.good, pa.int64()),
                "_penstock_rescued": pa.nulls(len(self.good), pa.string()),
            }
        )
        bad = [{"_penstock_row": number, "reason": "r", "raw": "x"} for number in sorted(self.rejected)]
        return LoadPart(
            ref=self.ref,
            rows=rows,
            rejected=pa.Table.from_pylist(bad, schema=REJECTED),
            again=self.how != "new",
            only_rejected=self.how == "only rejected",
        )


@dataclass
class Model:
    """What the warehouse should hold. A marker: rows, rejected, gone."""

    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    rejected: set[tuple[str, int]] = field(default_factory=set)
    marks: dict[str, list[int]] = field(default_factory=dict)
    refs: dict[str, ObjectRef] = field(default_factory=dict)

    def load(self, parts: list[Part], write: Write) -> None:
        """Do what a load does."""
        arriving: set[str] = set()
        for part in parts:
            name = part.ref.name
            if part.how == "new" and name in self.marks:
                continue
            mine = {at for at in self.rows if at[0] == name}
            if part.how == "only rejected" and name in self.marks:
                asked = {number for one, number in self.rejected if one == name} - {number for _, number in mine}
                brought, _, gone = self.marks[name]
            else:
                asked = {*part.good, *part.rejected}
                brought, gone = 0, 0
                for at in mine:
                    del self.rows[at]
            added = {(name, number): row for number, row in part.good.items() if number in asked}
            self.rows.update(added)
            self.rejected = {at for at in self.rejected if at[0] != name}
            self.rejected.update((name, number) for number in part.rejected & asked)
            self.marks[name] = [brought + len(added), len(part.rejected & asked), gone]
            self.refs[name] = part.ref
            arriving |= {name} if added else set()
        columns = [COLUMNS.index((name, dict(COLUMNS)[name])) for name in write.key or write.partitions]
        if not columns:
            return
        groups: dict[tuple[Any, ...], list[tuple[str, int]]] = {}
        for at, row in self.rows.items():
            groups.setdefault(tuple(row[place] for place in columns), []).append(at)
        for group in groups.values():
            if not any(name in arriving for name, _ in group):
                continue
            best = max(group, key=lambda at: self.rank(at, write))
            for at in group:
                if at != best and (write.key or at[0] != best[0]):
                    del self.rows[at]
                    self.marks[at[0]][2] += 1

    def rank(self, at: tuple[str, int], write: Write) -> tuple[Any, ...]:
        """What is greater wins."""
        name, number = at
        value = self.rows[at][2] if write.order_by else None
        return (value is not None, value or "", self.refs[name].arrived_at, self.refs[name].id, number)

    def compare(self, bench: WarehouseBench, dataset: str) -> None:
        """Assert that the warehouse holds what it should."""
        sql = f"SELECT _penstock_object, _penstock_row, a, b, v FROM {dataset}"
        there = Counter(bench.warehouse.query(sql, limit=1000).rows)
        assert there == Counter((*at, *row) for at, row in self.rows.items())
        sql = f"SELECT _penstock_object, _penstock_row FROM {dataset}__rejected"
        assert Counter(bench.warehouse.query(sql, limit=1000).rows) == Counter(self.rejected)
        sql = f"SELECT object, rows, rejected, gone FROM _penstock_objects WHERE dataset = '{dataset}'"
        found = bench.warehouse.query(sql, limit=1000).rows
        assert sorted(found) == sorted((name, *mark) for name, mark in self.marks.items())
        assert bench.warehouse.damaged(dataset) == []


values = st.tuples(
    st.sampled_from([None, 0, 1]), st.sampled_from([None, "", "x"]), st.sampled_from([None, "B", "a", "ä", "€", "😀"])
)


@st.composite
def parts(draw: st.DrawFn, dataset: str) -> list[Part]:
    """Some of five objects, of which two came at once, with other rows each time they are read."""
    chosen = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True))
    return [draw(one(dataset, number)) for number in chosen]


@st.composite
def one(draw: st.DrawFn, dataset: str, number: int) -> Part:
    rows = dict(enumerate(draw(st.lists(values, max_size=4)), start=1))
    rejected = frozenset(draw(st.sets(st.sampled_from(sorted(rows))))) if rows else frozenset()
    ref = ObjectRef(
        id=[3, 1, 2, 5, 4][number - 1],
        dataset=dataset,
        bucket="landing",
        key=f"{dataset}/{number}",
        generation=1,
        etag="e",
        size=1,
        arrived_at=NOW + timedelta(microseconds=number // 2),
    )
    good = {at: row for at, row in rows.items() if at not in rejected}
    return Part(ref, good, rejected, draw(st.sampled_from(["new", "again", "only rejected"])))


def load(bench: WarehouseBench, dataset: str, given: list[Part], write: Write) -> None:
    loaded = [part.loaded() for part in given]
    bench.warehouse.load(dataset, COLUMNS, loaded, token=1, run="r", now=NOW, write=write)


def fail(seam: str) -> None:
    raise faults.Injected(seam)


@settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_history_gives_what_the_rule_gives(bench: WarehouseBench, data: st.DataObject) -> None:
    """Rows, rejected rows and markers are the model's after every load, also when it failed at first, or came twice."""
    dataset, model = f"m{next(_numbers)}", Model()
    usual = data.draw(st.sampled_from(WRITES))
    for number in range(data.draw(st.integers(2, 5))):
        given_now = data.draw(parts(dataset))
        write = data.draw(st.sampled_from([usual] * 4 + list(WRITES)))
        if data.draw(st.sampled_from([False, False, True])):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(faults, "point", fail)
                with pytest.raises(faults.Injected):
                    load(bench, dataset, given_now, write)
            if number:
                model.compare(bench, dataset)
        for _ in range(data.draw(st.sampled_from([1, 1, 2]))):
            load(bench, dataset, given_now, write)
            model.load(given_now, write)
        model.compare(bench, dataset)


@settings(max_examples=examples(3), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_order_of_loads_does_not_matter(bench: WarehouseBench, data: st.DataObject) -> None:
    """Five objects merged one after the other, in any order, leave what they leave in one load in order of arrival."""
    write = data.draw(st.sampled_from(WRITES[1:]))
    dataset = f"m{next(_numbers)}"
    objects = [replace(data.draw(one(dataset, number)), how="new") for number in range(1, 6)]
    order = data.draw(st.permutations(objects))
    model = Model()
    model.load(objects, write)
    for part in order:
        load(bench, dataset, [part], write)
    model.compare(bench, dataset)
