"""`penstock init-dataset FILE`: a dataset's file, and the automation that loads it, from an example."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from penstock.cli.preview import opened
from penstock.declarations import Dataset, Format
from penstock.dialects import Excel
from penstock.errors import DeclarationError, PenstockError, Unreadable
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    from penstock.cli.dataset_file import Hint
    from penstock.model import Schema

_UNNAMED = re.compile(r"column\d+")
_FORMATS = [form for form in get_args(Format) if form not in ("auto", "delivery")]


@click.command("init-dataset")
@click.argument("file")
@click.option("--name", help="What the dataset is to be called; else its folder in the inbox or the file tells.")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="How to read it, where its suffix does not tell.")
@click.option("--pattern", help="Log lines: common, combined, or a regular expression; else the file tells.")
@click.option("--sheet", help="Which sheet of a workbook, by its name, or its number from 1 on.")
@click.option(
    "--header-row", type=click.IntRange(1), help="Which row of a sheet has the columns' names, if not the first."
)
@click.option("--print", "only_print", is_flag=True, help="Print what would be written, and write nothing.")
@click.pass_obj
def init_dataset(
    project_dir: Path,
    file: str,
    name: str | None,
    form: Any,
    pattern: str | None,
    sheet: str | None,
    header_row: int | None,
    only_print: bool,
) -> None:
    """Write flows/NAME.py for files like FILE, and the automation that loads them as they arrive.

    Types are left to be inferred, but where FILE cannot tell them for sure: those stand in it with the reason. Nothing
    is overwritten.
    """
    from penstock import formats
    from penstock.cli.dataset_file import automation_line, automation_source, dataset_source
    from penstock.cli.shaky import reserved_words
    from penstock.project import load_project

    settings = load_settings(project_dir)
    others = load_project(settings.project_dir, only=["flows"]).datasets
    if file == "-":
        raise click.UsageError("a dataset is named and read by its file's name: give a file")
    with opened(settings, file, None) as (path, where, key):
        form, pattern = _form_of(path, where.name, form, pattern)
        excel = Excel(sheet=int(sheet) if sheet and sheet.isdigit() else sheet, header_row=header_row or 1)
        dataset = _begun(where.name, key, name, others, format=form, pattern=pattern, excel=excel)
        target = Path("flows") / f"{dataset.name}.py"
        if (settings.project_dir / target).exists():
            raise DeclarationError(f"{target} exists and is not overwritten; choose another name with --name")
        dataset, schema, hints = _learned(path, f"{dataset.prefix}{where.name}", dataset)
    code = dataset_source(dataset, schema.columns, hints, example=where.name, reserved=reserved_words())
    _refuse_other(code, dataset)
    if formats.detect(where.name, dataset) == "excel" and any(
        _UNNAMED.fullmatch(one.original) for one in schema.columns
    ):
        click.echo("Some columns have no name. Do the names stand further down? Say --header-row NUMBER", err=True)
    if only_print:
        click.echo(code + f"\n# automations/: {automation_line(dataset.name)}")
        return
    _write(settings.project_dir, target, code)
    inbox = _from_here(settings.inbox / dataset.prefix)
    click.echo(f"{target} declares the dataset {dataset.name}, for files in {inbox}")
    _tell_automation(settings, dataset.name, automation_source(dataset.name), automation_line(dataset.name))
    shown = shlex.quote(file)
    click.echo(f"Look at it:  penstock preview {shown} --dataset {dataset.name}")
    click.echo("Start it:    penstock up   (again, if it runs; with a Prefect server of your own: penstock apply,")
    click.echo("             and start penstock sensors and serve again, which read flows/ when they begin)")
    if where.is_relative_to(settings.inbox):
        return
    click.echo(f"Load it:     mkdir -p {shlex.quote(inbox)} && cp {shown} {shlex.quote(inbox)}")


def _form_of(path: Path, filename: str, form: Format | None, pattern: str | None) -> tuple[Format, str | None]:
    """As asked, else `auto` where the name tells, else what the bytes look like; with the pattern of log lines."""
    from penstock import formats
    from penstock.cli.sniffed import sniffed

    if pattern is not None:
        return "log", pattern
    if form not in (None, "log"):
        return form, None
    if form is None:
        with suppress(Unreadable):
            formats.detect(filename, Dataset(name="any"))
            return "auto", None
    looks, pattern = sniffed(path)
    if form == "log" and pattern is None:
        raise click.UsageError("its lines are neither common nor combined: say --pattern, with a name for each group")
    return looks, pattern


def _begun(filename: str, key: str | None, name: str | None, others: Sequence[Dataset], **read: Any) -> Dataset:
    """The dataset before its columns are known. A file in the inbox has its prefix already."""
    from penstock.cli.dataset_file import name_from, refuse_overlap

    folder = key.partition("/")[0] if key and "/" in key else None
    chosen = name or name_from(folder or filename)
    dataset = Dataset(name=chosen, prefix=f"{folder}/" if folder else "", **read)
    refuse_overlap(dataset, others)
    return dataset


def _learned(path: Path, key: str, dataset: Dataset) -> tuple[Dataset, Schema, list[Hint]]:
    import pyarrow as pa

    from penstock import formats
    from penstock.cli.shaky import hints, records_in

    if not path.stat().st_size:
        raise Unreadable(f"{path.name} has 0 bytes; give an example with records in it")
    try:
        schema = formats.infer(path, key, dataset)
        if records := records_in(path, key, dataset, schema):
            dataset = replace(dataset, records=records)
            schema = formats.infer(path, key, dataset)
        found = hints(path, key, dataset, schema)
    except Unreadable as error:
        excel = formats.detect(key, dataset) == "excel"
        besides = "here: --sheet NAME, --header-row NUMBER" if excel else "another format is said with --format"
        raise Unreadable(f"{path.name}: {error}; {besides}") from None
    except OSError as error:
        raise PenstockError(f"{path.name} cannot be read through: {error.strerror or error}") from error
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(f"{path.name}: {type(error).__name__}: {error}") from None
    if not schema.columns:
        raise Unreadable(f"{path.name} has no records; give an example with some in it")
    return replace(dataset, columns={hint.column: hint.type for hint in found if hint.said}), schema, found


def _refuse_other(code: str, dataset: Dataset) -> None:
    namespace: dict[str, Any] = {"__name__": "flows.written"}
    exec(compile(code, "flows/written.py", "exec"), namespace)  # noqa: S102 - the text that `dataset_source` wrote
    if namespace["DATASET"] != dataset:
        raise PenstockError(f"the dataset {dataset.name} cannot be said as code: it would come back as another")


def _tell_automation(settings: Settings, name: str, code: str, line: str) -> None:
    if _declared(settings, name):
        click.echo("automations/ loads it as soon as something arrives already.")
        return
    target = Path("automations") / f"{name}_on_arrival.py"
    try:
        _write(settings.project_dir, target, code)
    except DeclarationError:
        click.echo(f"{target} exists and is not overwritten. To have it loaded on arrival, declare there: {line}")
        return
    click.echo(f"{target} has it loaded as soon as something arrives: {line}")


def _declared(settings: Settings, name: str) -> bool:
    """Whether an automation of the project does so. Where there is none, Prefect need not be imported."""
    if not any((settings.project_dir / "automations").glob("*.py")):
        return False
    from penstock.automations.everyday import on_arrival
    from penstock.project import load_project

    declared = load_project(settings.project_dir, only=["automations"]).declared_in
    return on_arrival(name).name in declared


def _from_here(path: Path) -> str:
    """A folder as it is written from here."""
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}/"


def _write(project_dir: Path, path: Path, code: str) -> None:
    there = project_dir / path
    try:
        there.parent.mkdir(exist_ok=True)
        with there.open("x", encoding="utf-8") as file:
            file.write(code)
    except FileExistsError:
        raise DeclarationError(f"{path} exists and is not overwritten; choose another name with --name") from None
    except OSError as error:
        raise PenstockError(f"{path} cannot be written: {error.strerror}; to see the code: --print") from None
