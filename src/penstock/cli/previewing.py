"""What a file would bring if it arrived now: read, checked and judged as a run does it, and nothing is kept."""

from __future__ import annotations

import difflib
import math
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.flows.judging import Judged, judge_all, judge_nothing
from penstock.flows.reading import Found, Reader
from penstock.formats import ReadResult, asking
from penstock.formats.control import LARGEST
from penstock.formats.engine import cursor
from penstock.formats.evolve import rescued_names
from penstock.formats.object_checks import ControlFile
from penstock.formats.result import RESCUED, ROW
from penstock.landing import dataset_for
from penstock.ledger.decide import no_dataset
from penstock.model import Schema, State
from penstock.quoting import quoted
from penstock.sensors.settle import is_temporary
from penstock.widening import joined


@dataclass(frozen=True, kw_only=True)
class Target:
    """The dataset that takes a file, how that was found, and the key under which the file would come."""

    dataset: Dataset
    why: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A column of the table. `made_from`: a name in the file or an expression; `typed`: what gave it its type."""

    name: str
    type: str
    made_from: str
    typed: str
    empty: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A check, and how many rows fail it; of one over the object, whether it fails, and what is wrong."""

    name: str
    predicate: str
    failing: int
    severity: str = "row"
    over: str = "row"
    told: str | None = None


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would become of the file. Without `result` it could not be read, for which `reason` is given."""

    target: Target
    state: State
    reason: str | None
    form: str | None = None
    known: Schema | None = None
    result: ReadResult | None = None
    columns: Sequence[Taken] = ()
    checks: Sequence[Checked] = ()
    filtered: int = 0
    rescued: int = 0
    rescued_names: Sequence[str] = ()
    report: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def target_of(path: PurePosixPath, datasets: Sequence[Dataset], *, key: str | None, asked: str | None) -> Target:
    """Which dataset takes the file: the one asked for, else by its key, else by the folder it lies in.

    `key` is its path below the inbox or in the bucket, None where it lies elsewhere. Raises Unreadable for a key that
    no dataset takes, DeclarationError where nothing tells, naming the datasets that there are.
    """
    names = ", ".join(dataset.name for dataset in datasets) or "none"
    if asked is not None:
        found = next((dataset for dataset in datasets if dataset.name == asked), None)
        if found is None:
            raise DeclarationError(f"no dataset {asked!r}; there are: {names}")
        own = key if key is not None and key.startswith(found.prefix) else None
        return Target(dataset=found, why="as asked", key=own or found.prefix + path.name)
    if key is not None:
        found = dataset_for(key, datasets)
        if found is None:
            raise Unreadable(f"{key} would wait in quarantine: {no_dataset(key)}. There are: {names}")
        return Target(dataset=found, why=f"by its prefix {found.prefix}", key=key)
    for folder in path.parents:
        for dataset in datasets:
            if folder.name and folder.name in (dataset.name, PurePosixPath(dataset.prefix).name):
                below = path.relative_to(folder)
                return Target(dataset=dataset, why=f"by its folder {folder.name}", key=f"{dataset.prefix}{below}")
    raise DeclarationError(
        f"which dataset is {path.name} for? Say so with --dataset; there are: {names}. "
        f"For one of its own: penstock init-dataset {shlex.quote(str(path))}"
    )


def look(
    path: Path,
    target: Target,
    remembered: Callable[[str], Schema | None],
    others: Callable[[], Mapping[str, Schema]] = dict,
) -> Preview:
    """Read the file by the schema that is remembered for its format, else by its own and those of `others`.

    Raises DeclarationError for faulty expressions, where it is sure that the file is not to blame.
    """
    notes = _notes(target)
    control, dataset = _control(path, target.dataset, notes)
    try:
        if not path.stat().st_size:
            state, told = judge_nothing(dataset, "it has 0 bytes", control)
            return Preview(target=target, state=state, reason=told, notes=notes)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            # A reader puts what a small file holds in the place of a compressed one: not in that of the file itself.
            link = Path(folder) / "file"
            link.symlink_to(path.absolute())
            files = {1: (link, target.key)}
            reader = Reader(files, dataset=dataset, remembered=remembered, others=others, progress=lambda: None)
            found = reader.read(1)
            judged = judge_all(found, control)
    except Unreadable as error:
        return _failed(target, str(error), notes)
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
        return _failed(target, f"{type(error).__name__}: {error}", notes)
    result = judged.result
    notes += _hint_notes(found, target.dataset)
    rescued = result.rows.column(RESCUED)
    return Preview(
        target=target,
        state=judged.state,
        reason=judged.reason,
        form=found.form,
        known=found.known,
        result=result,
        columns=_columns(found, result, dataset),
        checks=_checks(dataset, judged),
        filtered=judged.filtered,
        rescued=len(rescued) - rescued.null_count,
        rescued_names=rescued_names(result.rows),
        report=formats.report(result.rows, dataset) if judged.state is State.LOADED else {},
        notes=notes,
    )


def _control(path: Path, dataset: Dataset, notes: list[str]) -> tuple[ControlFile | None, Dataset]:
    """The control file beside the file; where there is none, the dataset without the checks that ask for it."""
    theirs = [name for name, check in dataset.object_checks.items() if check.control is not None]
    if not theirs or dataset.ready is None or dataset.ready.beside is None:
        return None, dataset
    beside = path.with_name(path.name + dataset.ready.beside)
    if beside.is_file():
        with beside.open("rb") as file:
            return ControlFile(beside.name, content=file.read(LARGEST + 1)), dataset
    notes.append(f"there is no control file {beside.name} beside it, without which a run would refuse it: not asked")
    return None, replace(dataset, checks={name: one for name, one in dataset.checks.items() if name not in theirs})


def first_rows(rows: pa.Table, count: int) -> list[dict[str, Any]]:
    """The first rows with their values as a program can take them: what JSON has no word for is text."""
    found = rows.slice(0, count)
    names = [name for name in found.column_names if name not in (ROW, RESCUED)]
    if not names or not found.num_rows:
        return []
    texts = [name for name in names if not _is_plain(found.schema.field(name).type)]
    values = {name: found.column(name).to_pylist() for name in names if name not in texts}
    if texts:
        # Python has no dates after 9999 and no nanoseconds, DuckDB has words for all of them.
        with cursor() as connection:
            connection.register("found", found.select(texts))
            casts = ", ".join(f"CAST({quoted(name)} AS VARCHAR)" for name in texts)
            told = connection.execute(f"SELECT {casts} FROM found").fetchall()
        values |= {name: [row[index] for row in told] for index, name in enumerate(texts)}
    return [{name: _jsonable(values[name][index]) for name in names} for index in range(found.num_rows)]


def preview_facts(preview: Preview, rows: int) -> dict[str, Any]:
    """All of it for a program, with the first `rows` rows and rejected rows."""
    result = preview.result
    facts: dict[str, Any] = {
        "key": preview.target.key,
        "dataset": preview.target.dataset.name,
        "dataset_by": preview.target.why,
        "format": preview.form,
        "verdict": preview.state.value,
        "reason": preview.reason,
        "notes": list(preview.notes),
    }
    if result is None:
        return facts
    return facts | {
        "schema": {
            "version": preview.known.version if preview.known else None,
            "from": "ledger" if preview.known else "file",
            "dialect": result.schema.dialect,
        },
        "columns": [
            {"name": c.name, "type": c.type, "made_from": c.made_from, "typed": c.typed, "empty": c.empty}
            for c in preview.columns
        ],
        "total": result.total,
        "good": result.rows.num_rows,
        "rejected": result.rejected.num_rows,
        "filtered": preview.filtered,
        "first_rows": first_rows(result.rows, rows),
        "first_rejected": [
            {"row": one[ROW]} | {name: one[name] for name in ("line", "reason", "raw", "column", "check")}
            for one in result.rejected.slice(0, rows).to_pylist()
        ],
        "checks": [asdict(check) for check in preview.checks],
        "rescued": {"rows": preview.rescued, "names": list(preview.rescued_names)},
        "report": preview.report,
    }


def checks_in(reason: str, names: Sequence[str]) -> set[str]:
    """Which checks a rejected row's reason names: they stand at its end, in their order, after what else is wrong."""
    found = set()
    for name in reversed(names):
        rest = reason.removesuffix(f"check {name}")
        if rest != reason and (not rest or rest.endswith("; ")):
            found.add(name)
            reason = rest.removesuffix("; ")
    return found


def _checks(dataset: Dataset, judged: Judged) -> list[Checked]:
    aside = dict(asking.aside(dataset))
    counts = {name: judged.failing[name].rows for name in judged.failing} | _put_aside(list(aside), judged.result)
    rows = [
        Checked(name=name, predicate=check.predicate, failing=counts.get(name, 0), severity=str(check.severity))
        for name, check in {**dataset.row_checks, **aside}.items()
    ]
    return rows + [
        Checked(
            name=name,
            predicate=check.predicate if check.control is None else f"{check.predicate} = its {check.control}",
            failing=int(name in judged.object_checks),
            severity=str(check.severity),
            over="object",
            told=judged.object_checks.get(name),
        )
        for name, check in dataset.object_checks.items()
    ]


def _put_aside(names: Sequence[str], result: ReadResult) -> dict[str, int]:
    """By check, how many rejected rows fail it, others or not."""
    counts = dict.fromkeys(names, 0)
    for one in pc.value_counts(result.rejected.column("reason").combine_chunks()) if names else ():
        for name in checks_in(one["values"].as_py(), names):
            counts[name] += one["counts"].as_py()
    return counts


def _columns(found: Found, result: ReadResult, declared: Dataset) -> list[Taken]:
    return [
        Taken(name=name, type=kind, empty=result.rows.column(name).null_count, **_origin(name, found, declared))
        for name, kind in result.columns
    ]


def _origin(name: str, found: Found, declared: Dataset) -> dict[str, str]:
    dataset = found.dataset
    if name in dataset.derive:
        if name in dataset.partitions and name not in declared.derive:
            return {"made_from": f"{name}=… in its key", "typed": "path"}
        return {"made_from": f"= {dataset.derive[name]}", "typed": "derived"}
    column = next((one for one in found.result.schema.columns if one.name == name), None)
    if column is None:
        return {"made_from": "transform", "typed": "transform"}
    before = {one.name: one.type for one in found.known.columns} if found.known else None
    if name in dataset.columns and dataset.columns[name].upper() == column.type.upper():
        was = before.get(name, column.type) if before else column.type
        typed = "hint" if was.upper() == column.type.upper() else f"hint, {was} until now"
    elif before is None:
        typed = "inferred"
    elif name not in before:
        typed = "inferred, a new column"
    else:
        typed = "remembered" if before[name] == column.type else f"widened from {before[name]}"
    return {"made_from": column.original, "typed": typed}


def _notes(target: Target) -> list[str]:
    notes = []
    name = PurePosixPath(target.key).name
    if is_temporary(name):
        notes.append(f"the inbox passes over a file that is called {name}: it looks unfinished. Rename it")
    if target.dataset.format == "delivery":
        notes.append(f"{target.dataset.name} is fed by the webhook, not by files: penstock send SOURCE FILE")
    return notes


def _hint_notes(found: Found, declared: Dataset) -> list[str]:
    """What the type hints mean that name no column, and those that are other than what is remembered."""
    columns = {column.name: column.type for column in found.result.schema.columns}
    before = {column.name: column.type for column in found.known.columns} if found.known else {}
    notes = []
    for name, kind in declared.columns.items():
        if name not in columns and name not in found.dataset.derive:
            near = difflib.get_close_matches(name.lower(), columns, n=1)
            notes.append(f"columns: no column is called {name}{f'; nearest {near[0]}' if near else ''}")
        elif name in before and before[name].upper() != kind.upper():
            table = joined(before[name], kind)
            stays = "stays" if table.upper() == before[name].upper() else "becomes"
            notes.append(f"columns: {name} is read as {kind} from now on; in the table it {stays} {table}")
    return notes


def inferred(path: Path, target: Target) -> Schema | None:
    """The columns that the file has by itself; None where it cannot be read as far as that."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        link = Path(folder) / "file"
        link.symlink_to(path.absolute())
        try:
            found = formats.infer(link, target.key, target.dataset)
        except (Unreadable, pa.ArrowException, ValueError, OverflowError, RecursionError):
            return None
    return found if found.columns else None


def _failed(target: Target, reason: str, notes: Sequence[str]) -> Preview:
    try:
        form = formats.detect(target.key, target.dataset)
    except Unreadable:
        form = None
    return Preview(target=target, state=State.QUARANTINED, reason=reason, form=form, notes=notes)


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(test(kind) for test in tests)


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
