"""A batch whose objects a flow of one's own works on: it asks for their rows, or gives rows in the place of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.flows.batch import Batch
from penstock.flows.learning import FORM
from penstock.flows.reading import Reader
from penstock.formats.engine import cursor
from penstock.formats.result import REJECTED, RESCUED, ROW
from penstock.formats.transform import NO_ROWS
from penstock.ledger import Ledger
from penstock.model import ObjectRef, State
from penstock.quoting import quoted


class FlowBatch(Batch):
    """`check` only if the flow asks for rows; `bring` what it gives; then `load` and `settle` as any batch."""

    @property
    def keeps_deliveries(self) -> bool:
        """Whether the file of a delivery is its line in the envelope, and not its body alone."""
        return self._dataset.format == "delivery"

    def unsettled(self) -> list[tuple[ObjectRef, Path]]:
        """The objects that came and of which nothing is decided yet, with files of their bytes.

        They are files of their own: where a small one is packed, `check` reads what it unpacked in the place of it.
        """
        found = []
        for ref in self.refs:
            if ref.id in self._fetched and ref.id not in self.outcomes:
                path = self._fetched[ref.id].path
                own = path.with_name(f"{path.name}.own")
                own.hardlink_to(path)
                found.append((ref, own))
        return found

    def rows_of(self, ref: ObjectRef) -> pa.Table:
        """The good rows that `check` found, without penstock's own columns.

        Of an object that is not to be loaded none, of the columns that are known: before the first load those that the
        dataset declares.
        """
        if ref.id in self._parts:
            return self._parts[ref.id].rows.drop_columns([ROW, RESCUED])
        for number in self._columns:
            return self._parts[number].rows.slice(0, 0).drop_columns([ROW, RESCUED])
        with suppress(Unreadable):
            form = formats.detect(self._fetched[ref.id].name, self._dataset)
            if (schema := self._ledger.schemas.latest(self._dataset.name, form)) is not None:
                return no_rows({column.name: column.type for column in schema.columns})
        return no_rows(self._dataset.columns)

    def bring(self, given: Mapping[int, Path | None]) -> None:
        """By their ids, what a flow made of objects, as Parquet files, in the place of their rows; None: no rows.

        What `check` put aside of them stays put aside. Raises Terminal for what cannot be loaded: the flow is to blame.
        """
        self.prepare()
        files = {number: path for number, path in given.items() if path is not None}
        reader = _reader(files, self._dataset, self._ledger, progress=self._progress)
        for ref in self.refs:
            if ref.id not in given:
                continue
            before = self._parts.get(ref.id)
            self._forget(ref)
            if ref.id in files:
                self._take(ref, replace(self._read(ref, reader), form=FORM), reader, None)
            if self.outcomes.get(ref.id) is not None and self.outcomes[ref.id].state is State.EMPTY:
                del self.outcomes[ref.id]
            if ref.id in self.outcomes:
                continue
            if ref.id not in self._parts:
                self._add_part(ref, rows=NO_ROWS, rejected=REJECTED.empty_table())
            if before is not None:
                part = self._parts[ref.id]
                aside = pa.concat_tables([before.rejected, part.rejected])
                self._parts[ref.id] = replace(part, rejected=aside)
        self._round_off()

    def is_quarantined(self, number: int) -> bool:
        """Whether the object of that id is to go to quarantine."""
        return number in self.outcomes and self.outcomes[number].state is State.QUARANTINED

    def put_aside(self, ref: ObjectRef, reason: str) -> None:
        """The object goes to quarantine."""
        self._forget(ref)
        self._end(ref, State.QUARANTINED, reason)
        self._round_off()

    def _forget(self, ref: ObjectRef) -> None:
        self._parts.pop(ref.id, None)
        self._columns.pop(ref.id, None)


def no_rows(types: Mapping[str, str]) -> pa.Table:
    """A table of these columns."""
    if not types:
        return pa.table({})
    columns = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in types.items())
    with cursor() as connection:
        return connection.sql(f"SELECT {columns} LIMIT 0").to_arrow_table()


def _reader(files: Mapping[int, Path], dataset: Dataset, ledger: Ledger, *, progress: Callable[[], None]) -> Reader:
    """Reads what a flow gives: rows of the table, as they are, so that nothing is derived, checked or left out again.

    Only a merge's key must be there. A column that the flow adds is added to the table, unless the schema is frozen.
    """
    known = [column for one in ledger.schemas.versions(dataset.name) for column in one.schema.columns]
    given = ledger.schemas.latest(dataset.name, FORM)
    own = {column.name: column.type for column in given.columns} if given else {}
    # Arrow has JSON as text, which must not make text of the table's column.
    json = {column.name: "JSON" for column in known if column.type == "JSON"}
    json = {name: kind for name, kind in json.items() if own.get(name, kind) == kind}
    # What is said to be text since is so here too; any other type is the flow's own affair.
    text = {name: kind for name, kind in dataset.columns.items() if name in own and kind.upper() == "VARCHAR"}
    plain = Dataset(
        name=dataset.name,
        prefix=dataset.prefix,
        format="parquet",
        columns=json | text,
        schema="freeze" if dataset.schema == "freeze" else "evolve",
        write=dataset.write,
        key=dataset.key,
        order_by=dataset.order_by,
        partitions=dataset.partitions,
        event_time=dataset.event_time,
        lateness=dataset.lateness,
        on_overwrite=dataset.on_overwrite,
    )
    return Reader(
        {number: (path, f"{number}.parquet") for number, path in files.items()},
        dataset=plain,
        remembered=lambda form: ledger.schemas.latest(dataset.name, FORM),
        progress=progress,
    )
