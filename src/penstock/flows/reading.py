"""Reading the objects of a batch in their order, small ones ahead and many at once.

What is read ahead was read by the schema of that moment: when an object makes it wider, what was read for those behind
it is read again. So every object is read by what its predecessors taught, whether alone or together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult
from penstock.formats.evolve import as_said, evolved, fitted, is_rescued, known_in
from penstock.formats.lattice import LONG
from penstock.formats.partitions import in_path, with_path
from penstock.formats.plain import unpack_small
from penstock.model import Schema

# What a key says of the dataset's partitions: only objects of one are read together.
Partition = tuple[tuple[str, str | None], ...]

# An object over this is read alone, where what a query costs beside its bytes no longer shows.
SMALL = 1_000_000
# DuckDB reads so much from the first byte to the last, without splitting it among threads.
TOGETHER = 8_000_000
# When a batch's rows take more than this, what is read next is kept on disk.
MOST_IN_MEMORY = 256_000_000


@dataclass(frozen=True, kw_only=True)
class Found:
    """One object's rows, its format, and the schema that was known before it; None for a first object of the format.

    `measure` is what it is measured by: the schema that was known with the types that are declared, or what the
    dataset's other formats taught; None for the dataset's first object. `dataset` is the one it was read by: the
    declared one, with what the object's key says of its partitions.
    """

    form: str
    known: Schema | None
    result: ReadResult
    dataset: Dataset
    measure: Schema | None = None


class Reader:
    """Reads objects by number; `files` are their files, and the names by whose suffix they are read, in order.

    A small object's gzip is replaced by what it holds.

    `remembered` gives the newest schema of a format; it is asked once for each, and the declared types override its
    own. `others` gives those of all formats, and is asked for the first object of one.
    """

    def __init__(
        self,
        files: Mapping[int, tuple[Path, str]],
        *,
        dataset: Dataset,
        remembered: Callable[[str], Schema | None],
        others: Callable[[], Mapping[str, Schema]] = dict,
        progress: Callable[[], None],
    ) -> None:
        self._files = files
        self._dataset = dataset
        self._remembered = remembered
        self._others = others
        self._progress = progress
        # What is read by, and where declared types made another of it, what was remembered.
        self._schemas: dict[str, Schema | None] = {}
        self._before: dict[str, Schema] = {}
        self._ahead: dict[int, ReadResult] = {}
        self._looked_at: dict[str, set[int]] = {}
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._by_path: dict[Partition, Dataset] = {}
        self._alike: dict[tuple[str, Partition], list[int]] = defaultdict(list)
        self._place: dict[int, int] = {}
        for number, (_, name) in files.items():
            with suppress(Unreadable):  # it is said when the object is read
                alike = self._alike[formats.detect(name, dataset), in_path(name, dataset)]
                self._place[number] = len(alike)
                alike.append(number)

    def read(self, number: int, *, long: Collection[str] = ()) -> Found:
        """The object's rows; the columns `long` never become DOUBLE, where it is the first of its format.

        Raises Unreadable, and DeclarationError for faulty expressions.
        """
        self._progress()
        path, name = self._files[number]
        form = formats.detect(name, self._dataset)
        partition = in_path(name, self._dataset)
        dataset = self._dataset_of(partition)
        if form not in self._schemas:
            self._remember(form, self._remembered(form))
        known = self._schemas[form]
        if known is not None and number not in self._looked_at.setdefault(form, set()):
            self._read_ahead(number, form, partition, known)
        result = self._ahead.pop(number, None)
        measure = known
        if result is None or self._may_evolve(result):
            first = None
            if known is None:
                first = self._first(path, name, dataset, form)
                measure = first
                if first is not None and long:
                    dialect = first.dialect | {LONG: [*first.dialect.get(LONG, ()), *sorted(long)]}
                    first = replace(first, dialect=dialect)
            result = self._read_alone(path, name, dataset, known or first, first=known is None)
            self._bytes += result.rows.nbytes + result.rejected.nbytes
        before = self._before.get(form, known)
        return Found(form=form, known=before, result=result, dataset=dataset, measure=measure)

    def learn(self, form: str, schema: Schema) -> None:
        """Read what follows by this schema."""
        self._schemas[form] = schema
        self._before.pop(form, None)
        for number in self._looked_at.pop(form, ()):
            self._ahead.pop(number, None)

    def _remember(self, form: str, remembered: Schema | None) -> None:
        self._schemas[form] = remembered
        if remembered is not None and (said := as_said(remembered, self._dataset.columns)) != remembered:
            self._schemas[form] = said
            self._before[form] = remembered

    @property
    def _large(self) -> bool:
        return self._bytes > MOST_IN_MEMORY

    def _dataset_of(self, partition: Partition) -> Dataset:
        if partition not in self._by_path:
            self._by_path[partition] = with_path(self._dataset, partition)
        return self._by_path[partition]

    def _first(self, path: Path, name: str, dataset: Dataset, form: str) -> Schema | None:
        """The schema for the first object of a format, where the dataset has columns of other formats already."""
        others = {**self._others(), **{one: schema for one, schema in self._schemas.items() if schema is not None}}
        if not others:
            return None
        known = as_said(known_in(others.values()), dataset.columns)
        # Nested values are to be found whole where that is how they are known.
        types = {column.name: column.type for column in known.columns} | dict(dataset.columns)
        found = formats.infer(path, name, replace(dataset, columns=types))
        if not found.columns:
            return found
        said = form in formats.SAY_THEIR_COLUMNS
        new = [column.name for column in found.columns if all(column.name != one.name for one in known.columns)]
        if said and new and dataset.schema == "freeze":
            raise Unreadable(f"the schema is frozen, and it has other columns: {', '.join(new)}")
        return fitted(found, known, hints=dataset.columns, grows=said or dataset.schema == "evolve")

    def _read_alone(self, path: Path, name: str, dataset: Dataset, known: Schema | None, *, first: bool) -> ReadResult:
        try:
            schema = known or formats.infer(path, name, dataset)
            result = formats.read(path, name, dataset, schema, large=self._large)
            if not self._may_evolve(result):
                return result
            found = formats.infer(path, name, dataset)
            wider = evolved(result.schema, found, derived=dataset.derive)
            return formats.read(path, name, dataset, wider, large=self._large)
        except DeclarationError as error:
            if not first:
                raise
            # With no schema to go by, the first object is as likely wrong as the declaration: it must not be what
            # every later one is measured by, nor hold them up.
            raise Unreadable(f"the first object does not fit its declaration, or that is wrong: {error}") from None

    def _may_evolve(self, result: ReadResult) -> bool:
        return self._dataset.schema == "evolve" and is_rescued(result.rows)

    def _read_ahead(self, first: int, form: str, partition: Partition, schema: Schema) -> None:
        numbers = self._window(first, form, partition)
        self._looked_at[form].update(numbers)
        if len(numbers) > 1:
            paths = [self._files[number][0] for number in numbers]
            found = formats.read_together(
                paths, form, self._dataset_of(partition), schema, progress=self._progress, large=self._large
            )
            self._ahead.update((numbers[index], result) for index, result in found.items())
            self._bytes += sum(result.rows.nbytes + result.rejected.nbytes for result in found.values())

    def _window(self, first: int, form: str, partition: Partition) -> list[int]:
        """The object and the small ones of its format that follow it, up to what is read at once."""
        numbers: list[int] = []
        size = 0
        alike = self._alike[form, partition]
        for number in alike[self._place[first] :]:
            more = self._size(number, form)
            if more > SMALL:
                if number == first:
                    return [first]
                continue
            if size + more > TOGETHER:
                break
            size += more
            numbers.append(number)
        return numbers

    def _size(self, number: int, form: str) -> int:
        """The object's bytes, unpacked; of a gzip that is not small, only that it is not."""
        if number not in self._sizes:
            self._progress()
            path, _ = self._files[number]
            self._sizes[number] = formats.size_unpacked(path, form) if unpack_small(path, SMALL) else SMALL + 1
        return self._sizes[number]
