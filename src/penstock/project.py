"""Loads a project's four folders: sorted, explicit exports, errors that name the file.

`flows/*.py` export `DATASET`, `DEPLOYMENTS` or both, `sensors/*.py` export `SENSOR`, `webhook/*.py` export `SOURCE`
(`app.py` excepted), `automations/*.py` export `AUTOMATIONS`. Files that begin with `_` are the project's own.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.declarations import Bucket, Dataset, Folder
from penstock.errors import DeclarationError
from penstock.keys import may_overlap, prefixes, share_manifests, wrong_glob
from penstock.model import RESERVED_PREFIX
from penstock.nearest import did_you_mean
from penstock.own_flows import OwnFlow, check_own_flows, own_flows
from penstock.source_lines import line_of
from penstock.sources import Source
from penstock.unknown_names import unknown_name

FOLDERS = ("flows", "sensors", "webhook", "automations")


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a project declares. `automations` are those of `penstock.automations`, a room above: untyped here."""

    root: Path
    datasets: tuple[Dataset, ...]
    folders: tuple[Folder, ...]
    buckets: tuple[Bucket, ...]
    sources: tuple[Source, ...]
    automations: tuple[Any, ...] = ()
    # The file in which each automation is declared, by the automation's name as it is written there.
    declared_in: Mapping[str, str] = field(default_factory=dict)
    # The file below `root` in which each dataset is declared, by its name.
    dataset_files: Mapping[str, Path] = field(default_factory=dict)
    own_flows: tuple[OwnFlow, ...] = ()
    # The name of the flow that takes what is new in a dataset, in the place of `ingest`.
    consumers: Mapping[str, str] = field(default_factory=dict)

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name. Raises DeclarationError naming those that there are."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        raise DeclarationError(_unknown("dataset", name, [dataset.name for dataset in self.datasets]))

    def place(self, dataset: str, *where: str) -> tuple[str, int | None]:
        """The file that declares a dataset, and the line in which it says `where`: a field, and a key or item of it."""
        return _place(self.root, self.dataset_files[dataset], *where)

    def source(self, name: str) -> Source:
        """The source of that name. Raises DeclarationError naming those that there are."""
        for source in self.sources:
            if source.name == name:
                return source
        raise DeclarationError(_unknown("source", name, [source.name for source in self.sources]))


def load_project(root: Path, *, only: Sequence[str] = FOLDERS) -> Project:
    """Import the project's files and check them together. Raises DeclarationError naming the file.

    `only` names the folders to import: a run needs `flows` alone. The root goes on `sys.path`, so path equals import
    name.
    """
    root = root.resolve()
    if not (root / "flows").is_dir():
        raise DeclarationError(
            f"{root} is no penstock project: it has no folder flows/. Give one with --project DIR, or make one: "
            "penstock new DIR"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    datasets: list[tuple[Path, Dataset]] = []
    sensors: list[Folder | Bucket] = []
    sources: list[Source] = []
    automations: list[Any] = []
    own: list[OwnFlow] = []
    declared_in: dict[str, str] = {}
    if "flows" in only:
        for path, module in _modules(root, "flows"):
            own += _own_flows(path, module)
            datasets += [(path, dataset) for dataset in _datasets(path, module)]
    if "sensors" in only:
        for path, module in _modules(root, "sensors"):
            sensors += _exported(path, module, "SENSOR", (Folder, Bucket))
    if "webhook" in only:
        for path, module in _modules(root, "webhook", besides="app.py"):
            sources += _exported(path, module, "SOURCE", Source)
    if "automations" in only:
        for path, module in _modules(root, "automations"):
            for found in _exported(path, module, "AUTOMATIONS", (list, tuple)):
                automations += found
                declared_in.update({str(getattr(one, "name", one)): str(path) for one in found})
    _check_datasets(root, datasets)
    if "flows" in only:
        _check_sources(sources, {dataset.name for _, dataset in datasets})
    dataset_files = {dataset.name: path for path, dataset in datasets}
    return Project(
        root=root,
        datasets=tuple(dataset for _, dataset in datasets),
        folders=tuple(sensor for sensor in sensors if isinstance(sensor, Folder)),
        buckets=tuple(sensor for sensor in sensors if isinstance(sensor, Bucket)),
        sources=tuple(sources),
        automations=tuple(automations),
        declared_in=declared_in,
        dataset_files=dataset_files,
        own_flows=tuple(own),
        consumers=check_own_flows(own, dataset_files),
    )


def _unknown(what: str, name: str, names: Sequence[str]) -> str:
    return f"no {what} {name!r}; there are: {', '.join(names) or 'none'}{did_you_mean(name, names)}"


def _modules(root: Path, folder: str, *, besides: str = "") -> list[tuple[Path, ModuleType]]:
    found = []
    for path in sorted((root / folder).glob("*.py")):
        if path.name.startswith("_") or path.name == besides:
            continue
        name = f"{folder}.{path.stem}"
        shown = path.relative_to(root)
        try:
            module = importlib.import_module(name)
        except DeclarationError as error:
            raise DeclarationError(f"{_where(path, shown)}: {error}") from error
        except Exception as error:
            said = unknown_name(error) or f"{type(error).__name__}: {error}"
            raise DeclarationError(f"{_where(path, shown)}: {said}") from error
        if Path(module.__file__ or "").resolve() != path.resolve():
            raise DeclarationError(
                f"{shown} cannot be imported as {name}: {module.__file__} has that name already. Rename one of them"
            )
        found.append((shown, module))
    return found


def _where(path: Path, shown: Path) -> str:
    frames = traceback.extract_tb(sys.exc_info()[2])
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{shown}:{lines[-1]}" if lines else str(shown)


def _datasets(path: Path, module: ModuleType) -> list[Any]:
    if hasattr(module, "DEPLOYMENTS") and not hasattr(module, "DATASET"):
        return []
    return _exported(path, module, "DATASET", Dataset)


def _own_flows(path: Path, module: ModuleType) -> list[OwnFlow]:
    if not hasattr(module, "DEPLOYMENTS"):
        return []
    (found,) = _exported(path, module, "DEPLOYMENTS", (list, tuple))
    return own_flows(path, module, found)


def _exported(path: Path, module: ModuleType, name: str, kind: type[Any] | tuple[type[Any], ...]) -> list[Any]:
    if not hasattr(module, name):
        either = " and no DEPLOYMENTS" if name == "DATASET" else ""
        raise DeclarationError(f"{path} exports no {name}{either}; a file that is none of penstock's begins with _")
    value = getattr(module, name)
    if not isinstance(value, kind):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise DeclarationError(f"{path}: {name} is a {type(value).__name__}, not a {wanted}")
    return [value]


def _place(root: Path, file: Path, *where: str) -> tuple[str, int | None]:
    return str(file), line_of((root / file).read_text(encoding="utf-8", errors="replace"), where)


def _check_datasets(root: Path, found: Sequence[tuple[Path, Dataset]]) -> None:
    def refuse(file: Path, where: str, reason: str) -> None:
        path, line = _place(root, file, where)
        raise DeclarationError(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")

    for file, dataset in found:
        if any(prefix.startswith(RESERVED_PREFIX) for prefix in prefixes(dataset)):
            refuse(file, "backfill", f"dataset {dataset.name}: the prefix {RESERVED_PREFIX!r} is penstock's own")
        if dataset.match is not None and (wrong := wrong_glob(dataset.match)):
            refuse(file, "match", f"dataset {dataset.name}: match {wrong}")
        manifest = dataset.ready.manifest if dataset.ready else None
        if manifest is not None and (wrong := wrong_glob(manifest)):
            refuse(file, "ready", f"dataset {dataset.name}: ready: manifest {wrong}")
    for index, (file, one) in enumerate(found):
        for earlier, other in found[:index]:
            if one.name == other.name:
                refuse(file, "name", f"{earlier} declares the dataset {one.name} too; give one another name")
            if may_overlap(one, other):
                refuse(
                    file,
                    "match" if one.match is not None else "prefix",
                    f"datasets {one.name} and {other.name} ({earlier}) overlap: {_taken(one)} and {_taken(other)}; "
                    f"an object belongs to one dataset: give one another prefix, or both {_apart(one, other)}",
                )


def _apart(one: Dataset, other: Dataset) -> str:
    """What would tell the objects of two datasets apart."""
    if share_manifests(one, other):
        return "another manifest='…', since a manifest is read for one dataset"
    return "a match='…'"


def _taken(dataset: Dataset) -> str:
    """What a dataset takes, in the words of its declaration."""
    rest = f" with match {dataset.match!r}" if dataset.match is not None else ""
    ready = dataset.ready
    waits = "" if ready is None else f", waiting for {(ready.beside or ready.folder or ready.manifest)!r}"
    return " and ".join(map(repr, prefixes(dataset))) + rest + waits


def _check_sources(sources: Sequence[Source], datasets: Collection[str]) -> None:
    seen: set[str] = set()
    for source in sources:
        if source.name in seen:
            raise DeclarationError(f"two files in webhook/ declare the source {source.name}")
        seen.add(source.name)
        for dataset in source.datasets:
            if dataset not in datasets:
                raise DeclarationError(f"source {source.name} feeds the dataset {dataset!r}, which flows/ lacks")
