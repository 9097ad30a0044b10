"""`penstock import NAME`: an automation of the Prefect server as code that plans as unchanged."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.output import aside
from penstock.errors import DeclarationError
from penstock.ownership import owner
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from penstock.automations.server import Server, ServerAutomation

_NEAR = 5


@click.command("import")
@click.argument("name", required=False)
@click.option("--id", "chosen", help="Which, where several have that name.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="The file to write: automations/NAME.py")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the code instead of writing a file.")
@click.option("--list", "listing", is_flag=True, help="Print the names of what can be imported.")
@click.option("--json", "as_json", is_flag=True, help="With --list, print facts for a program.")
@click.pass_obj
def import_(
    project_dir: Path,
    name: str | None,
    chosen: str | None,
    target: Path | None,
    to_stdout: bool,
    listing: bool,
    as_json: bool,
) -> None:
    """Write the automation NAME, made by hand on the server, as code; it is this project's from its first change on."""
    if not listing and not name and not chosen:
        raise click.UsageError("Name an automation, or ask for those there are: penstock import --list")
    if as_json and not listing:
        raise click.UsageError("--json goes with --list")
    settings = load_settings(project_dir)
    if target is not None and not is_loaded(target):
        raise click.UsageError(f"{target} would not be loaded; give a file automations/name.py, name being a word")
    there = _read(settings)
    if listing and as_json:
        facts = [
            {"id": one.id, "name": one.name, "enabled": one.enabled, "owner": owner(one.tags)}
            for one in sorted(there, key=lambda one: (one.name, one.id))
        ]
        click.echo(json.dumps(facts, indent=2))
        return
    if listing:
        for found in sorted(there, key=lambda one: (one.name, one.id)):
            click.echo(f"{found.id}  {found.name}  ({_standing(found, settings.project)})")
        return
    found = choose(there, name, chosen, project=settings.project)
    alone = sum(one.name == found.name for one in there) == 1
    file, code = written(found, settings.project, alone=alone)
    if to_stdout:
        click.echo(code, nl=False)
        return
    _refuse_declared(found.name, settings)
    path = target or Path("automations") / file
    _write(settings.project_dir, path, code)
    click.echo(f"{path} declares {found.name!r}.")
    aside("Next: penstock plan")


def choose(
    there: Sequence[ServerAutomation], name: str | None, chosen: str | None, *, project: str
) -> ServerAutomation:
    """The automation that is meant. Raises DeclarationError for none, several, and one that another project owns."""
    named = [one for one in there if name in {None, one.name} and chosen in {None, one.id}]
    if not named and chosen:
        raise DeclarationError(
            f"no automation {name or ''!r} with the id {chosen}; those there are: penstock import --list"
        )
    if not named:
        near = difflib.get_close_matches(name or "", sorted({one.name for one in there}), n=_NEAR, cutoff=0.5)
        hint = f"near: {', '.join(map(repr, near))}" if near else "those there are: penstock import --list"
        raise DeclarationError(f"the server has no automation {name!r}; {hint}")
    if len(named) > 1:
        ids = "".join(f"\n  --id {one.id}  ({_standing(one, project)})" for one in named)
        raise DeclarationError(f"the server has {len(named)} automations {name!r}; say which:{ids}")
    (found,) = named
    if (other := owner(found.tags)) not in {None, project}:
        raise DeclarationError(f"automation {found.name!r} belongs to the project {other!r}, which declares it")
    return found


def written(found: ServerAutomation, project: str, *, alone: bool = True) -> tuple[str, str]:
    """The name of the file, and code that was seen to declare the very same. Raises DeclarationError."""
    from penstock.automations.forms import form_of
    from penstock.automations.source import declared_form, declared_in, file_name, source_of

    code = source_of(found.form, project=project, adopt="" if alone else found.id)
    (automation,) = declared_in(code, filename="automations/imported.py")
    if form_of(automation, project=project) != declared_form(found.form, project=project):
        raise DeclarationError(f"automation {found.name!r} cannot be said as code: it would come back as another")
    return file_name(found.form, project=project), code


def is_loaded(path: Path) -> bool:
    """Whether a file of the project, by its path from there, is one that declares automations."""
    stem = path.stem
    return path.parent == Path("automations") and path.suffix == ".py" and stem.isidentifier() and stem[0] != "_"


def _refuse_declared(name: str, settings: Settings) -> None:
    from penstock.automations.define import with_project
    from penstock.project import load_project

    declared = load_project(settings.project_dir, only=["automations"]).declared_in
    for written_name, file in declared.items():
        if with_project(written_name, settings.project) == name:
            raise DeclarationError(f"{file} declares {name!r} already; penstock plan says how it differs")


def _write(project_dir: Path, path: Path, code: str) -> None:
    file_there = project_dir / path
    try:
        file_there.parent.mkdir(exist_ok=True)
        with file_there.open("x", encoding="utf-8") as file:
            file.write(code)
    except FileExistsError:
        raise DeclarationError(f"{path} exists and is not overwritten; choose another file with --to") from None
    except OSError as error:
        raise DeclarationError(f"{path} cannot be written: {error.strerror}; to see the code: --stdout") from None


def _standing(found: ServerAutomation, project: str) -> str:
    owned = owner(found.tags)
    whose = {None: "owned by no project", project: "owned by this project"}.get(owned, f"owned by {owned}")
    return f"{'enabled' if found.enabled else 'paused'}, {whose}"


def _read(settings: Settings) -> Sequence[ServerAutomation]:
    from penstock.cli.planning import with_prefect

    async def work(client: PrefectClient) -> Server:
        # Prefect reads its settings when it is imported, and `with_prefect` has set them by now.
        from penstock.automations.server import read_server

        return await read_server(client)

    return with_prefect(settings, work).automations
