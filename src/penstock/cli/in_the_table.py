"""Of datasets whose rows take the place of others: what of the loaded rows is still in the warehouse's table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from penstock.errors import PenstockError
from penstock.settings import Settings
from penstock.wiring import open_warehouse

# Who asks wants an answer now; a load that holds DuckDB's file may take longer.
_WAIT_SECONDS = 1.0


@dataclass(kw_only=True)
class Gone:
    """Of the names in `asked` how many rows gave way to others, or why the warehouse was not asked."""

    asked: Sequence[str] = ()
    rows: dict[str, int] = field(default_factory=dict)
    not_asked: str | None = None


def where_rows_give_way(settings: Settings) -> Collection[str] | None:
    """The datasets that merge or replace partitions; None when the declarations cannot be read."""
    from penstock.project import load_project

    try:
        datasets = load_project(settings.project_dir, only=["flows"]).datasets
    except PenstockError:
        return None
    return {dataset.name for dataset in datasets if dataset.write != "append"}


def gone_of(settings: Settings, names: Sequence[str]) -> Gone:
    """How many rows of each of these objects gave way to others."""
    try:
        found = open_warehouse(settings, wait_seconds=_WAIT_SECONDS).gone(names) if names else {}
    except PenstockError as error:
        return Gone(asked=names, not_asked=str(error))
    return Gone(asked=names, rows=found)


def counted(settings: Settings, datasets: Sequence[str]) -> tuple[dict[str, int], str | None]:
    """The rows in the tables of these datasets; with the reason when the warehouse could not be asked."""
    found: dict[str, int] = {}
    try:
        warehouse = open_warehouse(settings, wait_seconds=_WAIT_SECONDS)
        for dataset in datasets:
            found[dataset] = warehouse.count(dataset)
    except PenstockError as error:
        return found, str(error)
    return found, None


def gave_way(rows: int, gone: int) -> str:
    """What is said of an object with so many rows, some of which gave way."""
    if rows == 1:
        return "1 row, which gave way to another"
    return f"{rows:,} rows, {'all' if gone >= rows else f'{gone:,}'} of which gave way to others"
