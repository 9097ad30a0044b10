"""Whether the columns of a batch's objects fit each other and the warehouse's table."""

from __future__ import annotations

from penstock.declarations import Dataset
from penstock.warehouse.base import APPEND, Warehouse, Write
from penstock.warehouse.merging import refuse_texts
from penstock.warehouse.rows import Columns
from penstock.widening import joined


class Fitting:
    """The types of the columns by which the dataset's rows are merged: the table's, and what the batch makes of them.

    The warehouse is asked once, and only where rows are merged.
    """

    def __init__(self, dataset: Dataset, warehouse: Warehouse) -> None:
        self._dataset = dataset
        self._warehouse = warehouse
        self._types: dict[str, str] | None = None

    def check(self, columns: Columns) -> None:
        """Take an object's columns for those of the batch. Raises DoesNotFit where rows would be compared as texts."""
        write = write_of(self._dataset)
        if write == APPEND:
            return
        if self._types is None:
            self._types = dict(self._warehouse.columns(self._dataset.name))
        types = dict(self._types)
        for name, kind in columns:
            there = types.get(name.lower(), kind)
            types[name.lower()] = joined(there, kind)
            refuse_texts(self._dataset.name, write, name, there, kind, types[name.lower()])
        self._types = types


def write_of(dataset: Dataset) -> Write:
    """How the dataset's rows come into its table."""
    if dataset.write == "merge":
        return Write(key=tuple(dataset.key), order_by=dataset.order_by)
    return Write(partitions=tuple(dataset.partitions)) if dataset.write == "replace_partition" else APPEND
