"""`penstock preview FILE`: what would be loaded, without loading anything."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from penstock.cli.completing import datasets, files
from penstock.cli.output import results
from penstock.errors import PenstockError
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    from penstock.model import Schema

_BUCKET = "s3://"


@click.command()
@click.argument("file", shell_complete=files)
@click.option(
    "--dataset", "asked", shell_complete=datasets, help="The dataset that is to take it; else the file's place tells."
)
@click.option("--name", help="What the file is called, for `-`, a pipe, or another suffix than its own.")
@click.option("--rows", type=click.IntRange(0, 1000), default=5, show_default=True, help="How many rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def preview(project_dir: Path, file: str, asked: str | None, name: str | None, rows: int, as_json: bool) -> None:
    """What would be loaded of FILE: columns, rows, rejected rows and checks. Nothing is loaded, nothing need run.

    FILE is a file, compressed or not, `-` for standard input (with --name), or s3://BUCKET/KEY.

    The dataset is --dataset, else the one whose prefix takes the file's path below the inbox, else the one that its
    folder is called like. Exit code: 0 it would be loaded, 1 it would go to quarantine, 2 wrong usage.
    """
    from rich.text import Text

    from penstock.cli.faulty import faults_told, refuse_faulty
    from penstock.cli.previewing import inferred, look, preview_facts, target_of
    from penstock.cli.show_preview import preview_lines
    from penstock.model import State
    from penstock.project import load_project

    settings = load_settings(project_dir)
    project = load_project(settings.project_dir, only=["flows"])
    with opened(settings, file, name) as (path, where, key):
        target = target_of(where, project.datasets, key=key, asked=asked)
        refuse_faulty(settings, project, [target.dataset])
        schemas = Schemas(settings, target.dataset.name)
        try:
            found = look(path, target, schemas.latest, lambda: schemas.others)
        except OSError as error:
            raise PenstockError(f"{file} cannot be read through: {error.strerror or error}") from error
        if found.result is None and not schemas.found and (schema := inferred(path, target)):
            # By the file's own columns more can be said of what is wrong than before it came.
            told = faults_told(project, [(target.dataset, [schema])])
            wrong = f"the file does not fit its declaration, or that is wrong: {'; '.join(told)}"
            found = replace(found, reason=wrong) if told else found
        if as_json:
            facts = {"file": file, **preview_facts(found, rows), "schema_note": schemas.said}
            click.echo(json.dumps(facts, indent=2, default=str))
        else:
            console = results()
            for line in preview_lines(found, file=file, rows=rows, width=console.width, said=schemas.said):
                console.print(line, soft_wrap=isinstance(line, Text))
    if found.state is State.QUARANTINED:
        sys.exit(1)


class Schemas:
    """The remembered schemas of a dataset, where there is a ledger; `said` tells what was found."""

    def __init__(self, settings: Settings, dataset: str) -> None:
        self._settings = settings
        self._dataset = dataset
        self.said = "schema inferred from this file"
        self.found = False
        # By format, where none is remembered for the file's own.
        self.others: dict[str, Schema] = {}

    def latest(self, form: str) -> Schema | None:
        """The newest one of a format; None, and the reason in `said`, when there is none to be had."""
        from sqlalchemy import make_url

        from penstock.flows.learning import of_every_format
        from penstock.wiring import open_ledger

        url = make_url(self._settings.ledger)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            self.said = "schema inferred from this file: there is no ledger yet"
            return None
        try:
            ledger = open_ledger(self._settings)
        except PenstockError as error:
            self.said = f"schema inferred from this file, since the ledger cannot be read: {error}"
            return None
        try:
            found = ledger.schemas.latest(self._dataset, form)
            if found is None:
                self.others = of_every_format(ledger, self._dataset)
        finally:
            ledger.close()
        if found is None:
            self.said = f"schema inferred from this file: none is remembered for {form} of {self._dataset}"
            if self.others:
                self.said += f"; columns and types are those of {', '.join(sorted(self.others))}"
        else:
            self.found = True
            self.said = f"schema version {found.version}, which the ledger remembers for {form} of {self._dataset}"
        return found


@contextmanager
def opened(settings: Settings, file: str, name: str | None) -> Iterator[tuple[Path, PurePosixPath, str | None]]:
    """A local file with FILE's bytes, the path it is known by, and its key where it has one.

    Raises click.UsageError, PenstockError.
    """
    if file.startswith(_BUCKET):
        bucket, _, there = file.removeprefix(_BUCKET).partition("/")
        with _spooled(lambda target: _fetch(settings, bucket, there, target)) as path:
            yield path, PurePosixPath(name or there), (name or there) if bucket == settings.bucket else None
        return
    if file == "-":
        if not name:
            raise click.UsageError("standard input has no name: give one with --name, such as --name weather/a.csv")
        with _spooled(_copy_stdin) as path:
            yield path, PurePosixPath(name), name if "/" in name else None
        return
    given = Path(file)
    if given.is_dir() or not given.exists():
        raise click.UsageError(f"{file} is {'a folder' if given.is_dir() else 'not there'}; give one file")
    where = given.absolute()
    if name:
        where = where.with_name(Path(name).name)
    key: str | None = where.relative_to(settings.inbox).as_posix() if where.is_relative_to(settings.inbox) else None
    if name and "/" in name:
        key = name
    try:
        if given.is_file():
            with given.open("rb"):
                pass
            yield given, PurePosixPath(where), key
        else:
            # A pipe can be read once, and is read several times.
            with _spooled(lambda target: _copy(given, target)) as path:
                yield path, PurePosixPath(where), key
    except PermissionError:
        raise click.UsageError(f"{file} may not be read by you") from None


@contextmanager
def _spooled(fill: Callable[[Path], None]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "file"
        fill(path)
        yield path


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing)


def _copy_stdin(target: Path) -> None:
    with target.open("wb") as writing:
        shutil.copyfileobj(sys.stdin.buffer, writing)


def _fetch(settings: Settings, bucket: str, key: str, target: Path) -> None:
    from penstock.wiring import open_store

    if not key:
        raise click.UsageError("give an object as s3://BUCKET/KEY")
    store = open_store(settings)
    store.get(bucket, key, target, etag=store.stat(bucket, key).etag)
