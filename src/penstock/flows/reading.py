"""Reading the objects of a batch in their order, small ones ahead and many at once.

What is read ahead was read by the schema of that moment: when an object makes it wider, what was read for those behind
it is read again. So every object is read by what its predecessors taught, whether alone or together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult
from penstock.formats.evolve import evolved, is_rescued
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
    """One object's rows, its format, and the schema that was known before it; None for a first object.

    `dataset` is the one it was read by: the declared one, with what the object's key says of its partitions.
    """

    form: str
    known: Schema | None
    result: ReadResult
    dataset: Dataset


class Reader:
    """Reads objects by number; `files` are their files, and the names by whose suffix they are read, in order.

    A small object's gzip is replaced by what it holds.

    `remembered` gives the newest schema of a format; it is asked once for each.
    """

    def __init__(
        self,
        files: Mapping[int, tuple[Path, str]],
        *,
        dataset: Dataset,
        remembered: Callable[[str], Schema | None],
        progress: Callable[[], None],
    ) -> None:
        self._files = files
        self._dataset = dataset
        self._remembered = remembered
        self._progress = progress
        self._schemas: dict[str, Schema | None] = {}
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

    def read(self, number: int) -> Found:
        """The object's rows. Raises Unreadable, and DeclarationError for faulty expressions."""
        self._progress()
        path, name = self._files[number]
        form = formats.detect(name, self._dataset)
        partition = in_path(name, self._dataset)
        dataset = self._dataset_of(partition)
        if form not in self._schemas:
            self._schemas[form] = self._remembered(form)
        known = self._schemas[form]
        if known is not None and number not in self._looked_at.setdefault(form, set()):
            self._read_ahead(number, form, partition, known)
        result = self._ahead.pop(number, None)
        if result is None or self._may_evolve(result):
            result = self._read_alone(path, name, dataset, known)
            self._bytes += result.rows.nbytes + result.rejected.nbytes
        return Found(form=form, known=known, result=result, dataset=dataset)

    def learn(self, form: str, schema: Schema) -> None:
        """Read what follows by this schema."""
        self._schemas[form] = schema
        for number in self._looked_at.pop(form, ()):
            self._ahead.pop(number, None)

    @property
    def _large(self) -> bool:
        return self._bytes > MOST_IN_MEMORY

    def _dataset_of(self, partition: Partition) -> Dataset:
        if partition not in self._by_path:
            self._by_path[partition] = with_path(self._dataset, partition)
        return self._by_path[partition]

    def _read_alone(self, path: Path, name: str, dataset: Dataset, known: Schema | None) -> ReadResult:
        try:
            schema = known or formats.infer(path, name, dataset)
            result = formats.read(path, name, dataset, schema, large=self._large)
            if not self._may_evolve(result):
                return result
            found = formats.infer(path, name, dataset)
            wider = evolved(result.schema, found, derived=dataset.derive)
            return formats.read(path, name, dataset, wider, large=self._large)
        except DeclarationError as error:
            if known is not None:
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
