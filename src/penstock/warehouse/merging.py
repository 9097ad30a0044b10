"""Which rows lose against others when a table merges by key or by partition: one statement, for both warehouses.

The rows that arrive are in the table already and their objects have markers; the losers among them and among what was
there are found in one go, and go in the same transaction. So merging and appending differ by one step at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from penstock.errors import DeclarationError, DoesNotFit
from penstock.warehouse.base import OBJECT, ROW, Write
from penstock.widening import JSON, TEXT, compares_otherwise

ADDRESS = "_penstock_address"


def merged_columns(dataset: str, write: Write, there: Collection[str]) -> tuple[list[str], str | None]:
    """The key's or the partitions' columns as the table calls them, and `order_by`. Raises DeclarationError."""
    known = {name.lower(): name for name in there}

    def of_table(name: str) -> str:
        if name.lower() not in known:
            raise DeclarationError(
                f"dataset {dataset}: its rows are to be merged by {name!r}, but its table has no such column, since no "
                "object has brought one; see to key, order_by and partitions in its declaration"
            )
        return known[name.lower()]

    same = [of_table(name) for name in write.key or write.partitions]
    return same, of_table(write.order_by) if write.key and write.order_by else None


def refuse_texts(dataset: str, write: Write, name: str, there: str, wanted: str, kind: str) -> None:
    """Raise DoesNotFit where values of type `wanted` would be compared as texts in a column by which rows are merged.

    The column has the type `there`, and would get `kind`.
    """
    by = [one.lower() for one in (*write.key, *write.partitions, *filter(None, [write.order_by]))]
    if name.lower() not in by:
        return
    by_order = write.order_by is not None and name.lower() == write.order_by.lower()
    if (kind != there and kind in (TEXT, JSON)) or compares_otherwise(there, wanted, by_order=by_order):
        raise DoesNotFit(
            f"dataset {dataset}: its rows are merged by {name}, which is {there} in the table and {wanted} here; as "
            f"texts they would compare otherwise, so columns={{{name!r}: …}} must say one type for all"
        )


def losers(write: Write, same: Sequence[str], order: str | None, *, markers: str, candidates: str, name: str) -> str:
    """A SELECT of ADDRESS and `object` of the rows that others take the place of.

    `candidates` is a SELECT of ADDRESS, OBJECT, ROW and the columns `same` and `order` of all rows that are
    equal in `same` to one that arrives. `same` are quoted names, `order` is an expression of the
    candidates, `c`, and `name` one by which objects that arrived at once are told apart in the same way everywhere.
    """
    # A marker older than `arrived_at` has the time of its load, which is later and in the same order.
    arrival = [
        "coalesce(m.arrived_at, m.loaded_at) DESC NULLS LAST",
        "m.sequence DESC NULLS LAST",
        f"{name} DESC",
    ]
    equal = ", ".join(f"c.{name}" for name in same)
    if write.key:
        first = [f"{order} DESC NULLS LAST"] if order else []
        # Of rows that a transform made of one record the last one, which lies behind the others.
        by = ", ".join([*first, *arrival, f"c.{ROW} DESC", f"c.{ADDRESS} DESC"])
        lost = f"row_number() OVER (PARTITION BY {equal} ORDER BY {by}) > 1"
    else:
        by = ", ".join(arrival)
        lost = f"c.{OBJECT} <> first_value(c.{OBJECT}) OVER (PARTITION BY {equal} ORDER BY {by})"
    return (
        f"SELECT {ADDRESS}, object FROM (SELECT c.{ADDRESS}, c.{OBJECT} AS object, {lost} AS lost "
        f"FROM ({candidates}) c LEFT JOIN {markers} m ON m.object = c.{OBJECT}) judged WHERE lost"
    )
