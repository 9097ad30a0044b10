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

from penstock.cli.completing import files
from penstock.cli.output import aside
from penstock.cli.preview import opened
from penstock.declarations import Dataset, Format
from penstock.dialects import Csv, Excel
from penstock.errors import DeclarationError, PenstockError, Unreadable
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    from penstock.cli.dataset_file import Hint
    from penstock.model import Schema

_UNNAMED = re.compile(r"column\d+")
_FORMATS = [form for form in get_args(Format) if form not in ("auto", "delivery")]


@click.command("init-dataset")
@click.argument("file", shell_complete=files)
@click.option("--name", help="What the dataset is to be called; else its folder in the inbox or the file tells.")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="How to read it, where its suffix does not tell.")
@click.option("--pattern", help="Log lines: common, combined, or a regular expression; else the file tells.")
@click.option("--sheet", help="Which sheet of a workbook, by its name, or its number from 1 on.")
@click.option(
    "--header-row", type=click.IntRange(1), help="Which row of a sheet has the columns' names, if not the first."
)
@click.option("--encoding", help="Of CSV that is not UTF-8, by one of Python's names, such as windows-1252.")
@click.option("--delimiter", help="What parts the columns of CSV, where it is not found: ';', or tab.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal mark of CSV.")
@click.option("--skip", type=click.IntRange(0), help="How many lines of CSV come before the columns' names.")
@click.option("--records", help="The path to a JSON document's records, such as data.items.")
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
    encoding: str | None,
    delimiter: str | None,
    decimal: Any,
    skip: int | None,
    records: str | None,
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
        delimiter = "\t" if delimiter in ("tab", "\\t") else delimiter
        csv = Csv(delimiter=delimiter, encoding=encoding, decimal=decimal, skip=skip)
        form, pattern = _form_of(path, where.name, form, pattern, is_csv=csv != Csv())
        excel = Excel(sheet=int(sheet) if sheet and sheet.isdigit() else sheet, header_row=header_row or 1)
        read = {"format": form, "pattern": pattern, "excel": excel, "csv": csv, "records": records}
        dataset = _begun(where.name, key, name, others, **read)
        _refuse_unheeded(formats.detect(where.name, dataset), dataset)
        target = Path("flows") / f"{dataset.name}.py"
        if (settings.project_dir / target).exists():
            raise DeclarationError(f"{target} exists and is not overwritten; choose another name with --name")
        dataset, schema, hints = _learned(path, f"{dataset.prefix}{where.name}", dataset)
    code = dataset_source(dataset, schema.columns, hints, example=where.name, reserved=reserved_words())
    _refuse_other(code, dataset)
    if formats.detect(where.name, dataset) == "excel" and any(
        _UNNAMED.fullmatch(one.original) for one in schema.columns
    ):
        aside("Some columns have no name. Do the names stand further down? Say --header-row NUMBER")
    if only_print:
        click.echo(code + f"\n# automations/: {automation_line(dataset.name)}")
        return
    _write(settings.project_dir, target, code)
    inbox = _from_here(settings.inbox / dataset.prefix)
    click.echo(f"{target} declares the dataset {dataset.name}, for files in {inbox}")
    _tell_automation(settings, dataset.name, automation_source(dataset.name), automation_line(dataset.name))
    shown = shlex.quote(file)
    aside(f"Look at it:  penstock preview {shown} --dataset {dataset.name}")
    aside("Start it:    penstock up   (again, if it runs; with a Prefect server of your own: penstock apply,")
    aside("             and start penstock sensors and serve again, which read flows/ when they begin)")
    if where.is_relative_to(settings.inbox):
        return
    aside(f"Load it:     mkdir -p {shlex.quote(inbox)} && cp {shown} {shlex.quote(inbox)}")


def _form_of(
    path: Path, filename: str, form: Format | None, pattern: str | None, *, is_csv: bool
) -> tuple[Format, str | None]:
    """As asked, else `auto` where the name tells, else what the bytes look like; with the pattern of log lines."""
    from penstock import formats
    from penstock.cli.sniffed import sniffed
    from penstock.formats.packed import bare_name

    if pattern is not None:
        return "log", pattern
    if form not in (None, "log"):
        return form, None
    if form is None:
        with suppress(Unreadable):
            formats.detect(filename, Dataset(name="any"))
            return "auto", None
        if is_csv:
            return "csv", None
    looks, pattern = sniffed(path, is_log=form == "log" or bare_name(filename).endswith(".log"))
    if looks is None or (form == "log" and looks != "log"):
        raise click.UsageError(_ask_for_pattern(filename, pattern))
    return looks, pattern


def _ask_for_pattern(filename: str, offered: str | None) -> str:
    pattern = offered or r"(?P<level>\w+) (?P<text>.*)"
    return (
        f"{filename}: its lines are neither common nor combined, and not taken for a table. Of a log say what they "
        f"are, with a name for each column, such as\n  --pattern {shlex.quote(pattern)}\n"
        "If it is a table: --format csv, and where that is not found --delimiter ';' --skip 3"
    )


def _refuse_unheeded(kind: str, dataset: Dataset) -> None:
    """Raise click.UsageError for an option that says nothing of a file of this kind."""
    if dataset.csv != Csv() and kind not in ("csv", "tsv"):
        raise click.UsageError(f"--encoding, --delimiter, --decimal and --skip are for CSV, and this is {kind}")
    if dataset.records is not None and kind not in ("json", "ndjson"):
        raise click.UsageError(f"--records is for JSON, and this is {kind}")


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
        if dataset.records is None and (records := records_in(path, key, dataset, schema)):
            dataset = replace(dataset, records=records)
            schema = formats.infer(path, key, dataset)
        found = hints(path, key, dataset, schema)
    except Unreadable as error:
        raise Unreadable(f"{path.name}: {_advised(path, str(error), formats.detect(key, dataset))}") from None
    except OSError as error:
        raise PenstockError(f"{path.name} cannot be read through: {error.strerror or error}") from error
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(f"{path.name}: {type(error).__name__}: {error}") from None
    if not schema.columns:
        raise Unreadable(f"{path.name} has no records; give an example with some in it")
    return replace(dataset, columns={hint.column: hint.type for hint in found if hint.said}), schema, found


def _advised(path: Path, reason: str, kind: str) -> str:
    """Why an example cannot be read, and by which option it may be."""
    from penstock.cli.shaky import readings

    if kind in ("csv", "tsv") and reason.startswith("not UTF-8 text"):
        number = re.search(r"line (\d+)", reason)
        shown = [
            f"\n  {text!r} with --encoding {name}" for name, text in readings(path, int(number[1]) if number else None)
        ]
        line = f"line {number[1]}" if number else "a line"
        return f"not UTF-8 text. Say in which encoding it is; {line} reads{''.join(shown)}"
    besides = {
        "excel": "here: --sheet NAME, --header-row NUMBER",
        "json": "where the records are is said with --records PATH, another format with --format",
        "csv": "here: --delimiter, --encoding, --skip; another format is said with --format",
    }
    return f"{reason}; {besides.get(kind, 'another format is said with --format')}"


def _refuse_other(code: str, dataset: Dataset) -> None:
    namespace: dict[str, Any] = {"__name__": "flows.written"}
    exec(compile(code, "flows/written.py", "exec"), namespace)  # noqa: S102 - the text that `dataset_source` wrote
    if namespace["DATASET"] != dataset:
        raise PenstockError(f"the dataset {dataset.name} cannot be said as code: it would come back as another")


def _tell_automation(settings: Settings, name: str, code: str, line: str) -> None:
    if _declared(settings, name):
        aside("automations/ loads it as soon as something arrives already.")
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
