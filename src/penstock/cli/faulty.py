"""What is wrong with the SQL that a project's datasets declare, with file and line, before any data comes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, PenstockError
from penstock.model import Schema
from penstock.project import Project
from penstock.settings import Settings


def refuse_faulty(settings: Settings, project: Project, datasets: Sequence[Dataset] | None = None) -> None:
    """Raise DeclarationError with everything that is wrong, in the order of files and lines.

    By the schemas that the ledger remembers, where there is one that can be read.
    """
    if told := faults_told(project, _remembered(settings, project.datasets if datasets is None else datasets)):
        raise DeclarationError("\n".join(told))


def faults_told(project: Project, known: Sequence[tuple[Dataset, Sequence[Schema]]]) -> list[str]:
    """What is wrong in datasets whose columns are those of the schemas, with file and line, in their order."""
    from penstock.formats.declared import common, faults_of

    told = []
    for dataset, schemas in known:
        columns: list[Schema | None] = [*schemas] or [None]
        for fault in common([faults_of(dataset, schema) for schema in columns]):
            path, line = project.place(dataset.name, *fault.where)
            where = " ".join(fault.where)
            told.append((path, line or 0, f"dataset {dataset.name}: {where}: {fault.reason}"))
    return [f"{path}:{line}: {text}" if line else f"{path}: {text}" for path, line, text in sorted(told)]


def _remembered(settings: Settings, datasets: Sequence[Dataset]) -> list[tuple[Dataset, list[Schema]]]:
    """Each dataset with the newest schema of each format that its objects had."""
    from sqlalchemy import make_url

    from penstock.wiring import open_ledger

    nothing: list[tuple[Dataset, list[Schema]]] = [(dataset, []) for dataset in datasets]
    url = make_url(settings.ledger)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return nothing
    try:
        with closing(open_ledger(settings)) as ledger:
            found = []
            for dataset in datasets:
                newest = {one.form: one.schema for one in ledger.schemas.versions(dataset.name)}
                found.append((dataset, list(newest.values())))
            return found
    except PenstockError:
        # Whoever needs the ledger says what is the matter with it.
        return nothing
