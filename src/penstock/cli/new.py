"""`penstock new DIR`: a project of one's own, that works as it stands."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

import click

from penstock.cli.output import aside
from penstock.cli.project_files import Origin, filled, is_for_a_project, name_from, origin_given, origin_of, values_for
from penstock.errors import PenstockError, SettingsError

_TEMPLATE = "template"
# Which the project needs besides penstock and what that brings.
_NEEDED = ("pytest",)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="What the project is called on a Prefect server; default: as its folder.")
@click.option(
    "--from",
    "source",
    metavar="WHEEL|CHECKOUT|index",
    help="Where the project gets penstock from; default: from where this one came.",
)
def new(folder: Path, name: str | None, source: str | None) -> None:
    """Make a project in DIR, a new or an empty folder: a dataset with an example, an inbox, a webhook, an automation.

    It needs uv, and penstock as an installed package. A wheel is copied into the project; a checkout stays where it is.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty, and nothing is overwritten: give a new folder or an empty one")
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is no folder: give a new one or an empty one")
    named = name_from(name or folder.resolve().name, taken=is_package)
    origin = _origin(source)
    values = values_for(named, origin, version=metadata.version("penstock"))
    made = {path: filled(text, values) for path, text in _template()}
    _write(folder, made, origin)
    _tell(folder, named, sorted({path.parts[0] for path in made}), origin)


def _origin(source: str | None) -> Origin:
    if source == "index":
        return Origin()
    if source:
        return origin_given(Path(source))
    told = metadata.distribution("penstock").read_text("direct_url.json")
    return origin_of(json.loads(told) if told else None)


def is_package(name: str) -> bool:
    """Whether a project needs a package of that name, as far as one can tell from here."""
    if name in _NEEDED:
        return True
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _template() -> Iterator[tuple[PurePosixPath, str]]:
    """Each file of the template with its text, in a stable order."""

    def walk(there: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
        for entry in sorted(there.iterdir(), key=lambda entry: entry.name):
            inner = path / entry.name
            if entry.is_dir():
                yield from walk(entry, inner)
            elif is_for_a_project(inner):
                # Under its own name ruff and others would take it for a part of this repository.
                yield PurePosixPath(str(inner).removesuffix(".in")), entry.read_text(encoding="utf-8")

    return walk(files("penstock").joinpath(_TEMPLATE), PurePosixPath())


def _write(folder: Path, made: dict[PurePosixPath, str], origin: Origin) -> None:
    """Write all of it beside DIR and move it there: what cannot be written whole leaves nothing behind."""
    beside = folder.resolve().parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=beside, prefix=".penstock-new-") as draft:
            for path, text in made.items():
                target = Path(draft) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            if origin.wheel:
                shutil.copyfile(origin.wheel, Path(draft) / origin.wheel.name)
            # Not DIR itself, which may be the folder that somebody works in.
            folder.mkdir(exist_ok=True)
            for entry in sorted(Path(draft).iterdir()):
                entry.rename(folder / entry.name)
    except OSError as error:
        raise PenstockError(f"no project can be made in {folder}: {error.strerror or error}") from error


def _tell(folder: Path, name: str, made: list[str], origin: Origin) -> None:
    click.echo(f"{folder} is the project {name}: {', '.join(made)}")
    if origin.wheel:
        click.echo(f"It brings penstock with it: {origin.wheel.name}")
    elif origin.source:
        click.echo(f"It gets penstock from {origin.source} (pyproject.toml)")
    go = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    aside(f"Test it:   {go}uv run pytest")
    aside("Start it:  uv run penstock up")
    aside("Load:      cp examples/sales.csv inbox/sales/   (beside it; README.md goes on)")
