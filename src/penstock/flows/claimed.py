"""The objects of a claim, and what a flow says of them; nothing is written before its block ends."""

from __future__ import annotations

import io
import threading
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from penstock.envelope import decode_line
from penstock.errors import PenstockError
from penstock.flows.given import FlowBatch
from penstock.flows.rows import as_table, put_together, write_parquet
from penstock.model import ObjectRef

_SAID_NOTHING = (
    "say what became of it before the block ends: claim.load(rows, of=object) or claim.load() loads rows, claim.done() "
    "needs none, claim.quarantine(object, reason) puts one aside"
)


class Misused(PenstockError):
    """The claim was not used as it has to be."""


class ClaimedObject:
    """One object of a claim: `name` is the warehouse's for it, `path` a local file with its bytes until the block ends.

    In another process, such as one of Dask's, it has its names and its bytes only.
    """

    def __init__(self, ref: ObjectRef, path: Path, *, claim: Claim | None, delivery: bool) -> None:
        self.id = ref.id
        self.key = ref.key
        self.name = ref.name
        self.size = ref.size
        self.path = path
        self._claim = claim
        self._delivery = delivery

    def open(self) -> BinaryIO:
        """Its bytes as a stream, to be closed; of a delivery its body."""
        if self._delivery:
            return io.BytesIO(decode_line(self.path.read_bytes()).body)
        return self.path.open("rb")

    def arrow(self) -> pa.Table:
        """Its good rows, by the dataset's own reading and checks, which are done once for all objects of the claim.

        What these put into quarantine has no rows, and none that are given for it are loaded.
        """
        if self._claim is None:
            raise Misused(f"{self.key}: rows are read in the flow that claimed it; hand arrow() to the task instead")
        return self._claim._rows_of(self.id)

    def pandas(self) -> Any:
        """`arrow()` as a DataFrame of pandas, if that is installed."""
        _installed("pandas", self.key)
        return self.arrow().to_pandas()

    def polars(self) -> Any:
        """`arrow()` as a DataFrame of polars, if that is installed."""
        return _installed("polars", self.key).from_arrow(self.arrow())

    # Prefect hashes and sends what a task is given.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_claim": None}

    def __repr__(self) -> str:
        return f"<{self.name}, {self.size} bytes>"


class Claim:
    """The objects of one batch, and what the flow says of them. Falsy when there are none.

    `busy`: there are none for this run, because another one has the dataset, or it rests after a failure. May be used
    from several threads, such as those of mapped tasks.
    """

    def __init__(self, dataset: str, batch: FlowBatch | None = None, spool: Path | None = None) -> None:
        self.dataset = dataset
        self.busy = False
        self._batch = batch
        self._spool = spool
        self._lock = threading.RLock()
        self._checked = False
        self._over = False
        # By the object's id: tables, or nothing for its own rows.
        self._given: dict[int, list[pa.Table] | None] = {}
        self._of_all: list[pa.Table] = []
        unsettled = batch.unsettled() if batch else []
        self._refs = {ref.id: ref for ref, _ in unsettled}
        self._objects = [
            ClaimedObject(ref, path, claim=self, delivery=bool(batch and ref.entry and batch.keeps_deliveries))
            for ref, path in unsettled
        ]

    def __bool__(self) -> bool:
        return bool(self._objects)

    @property
    def objects(self) -> list[ClaimedObject]:
        """All of them, in the order of arrival, and the same list whatever becomes of them."""
        return list(self._objects)

    @property
    def quarantined(self) -> list[ClaimedObject]:
        """Those that will be in quarantine: put aside by the flow, or by the dataset's reading if it was asked for."""
        return [one for one in self._objects if self._batch and self._batch.is_quarantined(one.id)]

    def load(self, rows: Any = None, *, of: ClaimedObject | None = None) -> None:
        """Have rows loaded when the block ends: a pyarrow.Table, a DataFrame, or a list of dicts.

        They take the place of the rows of the object `of`; without it they stand for the whole batch, and belong to its
        first object. Several times for one object is together. Without `rows`: what the dataset's own reading finds, in
        `of` or in all of which nothing was said.
        """
        with self._lock:
            self._usable()
            if rows is not None:
                table = as_table(rows)
                if of is None:
                    self._of_all.append(table)
                    return
                given = self._given.setdefault(self._id(of), [])
                if given is None:
                    raise Misused(f"{of.key}: its own rows are loaded already; give it others, or load() it, not both")
                given.append(table)
                return
            self._check()
            for one in [of] if of is not None else self._unsaid():
                if self._given.get(self._id(one)):
                    raise Misused(f"{one.key}: it was given rows already; leave out the load() of its own")
                self._given[one.id] = None

    def done(self, of: ClaimedObject | None = None) -> None:
        """The object `of`, or every one of which nothing was said, is dealt with, and brings no rows."""
        with self._lock:
            self._usable()
            for one in [of] if of is not None else self._unsaid():
                self._given.setdefault(self._id(one), [])

    def quarantine(self, of: ClaimedObject, reason: str) -> None:
        """The object is put aside when the block ends, with the reason, as one that cannot be read."""
        with self._lock:
            self._usable()
            assert self._batch is not None
            number = self._id(of)
            self._given.pop(number, None)
            if self._is_open(number):
                self._batch.put_aside(self._refs[number], reason)

    def _rows_of(self, number: int) -> pa.Table:
        with self._lock:
            self._usable()
            assert self._batch is not None
            self._check()
            return self._batch.rows_of(self._refs[number])

    def _check(self) -> None:
        if not self._checked:
            assert self._batch is not None
            self._batch.check()
            self._checked = True

    def _unsaid(self) -> list[ClaimedObject]:
        return [one for one in self._objects if self._is_open(one.id) and one.id not in self._given]

    def _is_open(self, number: int) -> bool:
        return self._batch is not None and number not in self._batch.outcomes

    def _id(self, of: ClaimedObject) -> int:
        if of.id not in self._refs:
            raise Misused(f"{of.key} is no object of this claim of {self.dataset}")
        return of.id

    def _usable(self) -> None:
        if self._over:
            raise Misused(f"the claim of {self.dataset} is over: use it within its block")
        if self._batch is None:
            raise Misused(f"nothing of {self.dataset} was claimed: ask `if claim:` first")

    def end(self) -> None:
        """Nothing may be said any more."""
        self._over = True

    def bring(self) -> None:
        """Hand the batch what was said. Raises Misused where nothing was said of an object."""
        assert self._batch is not None
        assert self._spool is not None
        self.end()
        if self._of_all:
            unsaid = self._unsaid()
            if not any(self._is_open(one.id) for one in self._objects):
                raise Misused(
                    f"rows for the whole claim of {self.dataset}, and all of its objects go to quarantine: rows belong "
                    "to an object; leave out load() where claim.quarantined has them all"
                )
            if not unsaid:
                raise Misused(
                    f"rows for the whole claim of {self.dataset}, and each object has its own already: say of= for them"
                )
            if unsaid:
                self._given[unsaid[0].id] = list(self._of_all)
            for one in unsaid[1:]:
                self._given[one.id] = []
        if unsaid := self._unsaid():
            keys = ", ".join(one.key for one in unsaid[:3]) + (", …" if len(unsaid) > 3 else "")
            raise Misused(f"nothing was said of {len(unsaid)} objects of {self.dataset} ({keys}): {_SAID_NOTHING}")
        given: dict[int, Path | None] = {}
        for number, tables in self._given.items():
            if tables is None or not self._is_open(number):
                continue
            given[number] = None
            rows = put_together(tables) if tables else None
            if rows is not None and rows.num_rows:
                given[number] = self._spool / f"{number}.given"
                write_parquet(rows, self._spool / f"{number}.given")
        if given:
            self._batch.bring(given)


def _installed(library: str, key: str) -> Any:
    try:
        return import_module(library)
    except ImportError:
        raise Misused(f"{key}: {library} is not installed; install it, or take arrow()") from None
