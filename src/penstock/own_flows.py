"""Flows of a project's own as deployments: what `DEPLOYMENTS` in a file of `flows/` holds. Does not import Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from penstock.errors import DeclarationError
from penstock.model import NAME
from penstock.nearest import did_you_mean
from penstock.schedules import wrong_cron, wrong_rule, wrong_zone
from penstock.source_lines import line_of_call

# The flows that penstock deploys itself.
RESERVED_FLOWS = ("ingest", "verify", "retain")

_COLLISIONS = ("enqueue", "cancel_new")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A Prefect flow of the project's own, deployed as `<flow>/<project>`, or `<flow>/<project>.<name>`.

    With `consumes` it takes what is new in that dataset (`penstock.claim`) in the place of `ingest`, is called
    `<flow>/<project>.<dataset>`, and has the dataset's schedules too. `every`, `cron` and `rrule` are schedules, any
    number of them at once; `timezone` is that of `cron` and `rrule`. `concurrency_limit` is how many of its runs may be
    under way at once, and `collision` what becomes of one more: it waits, or is cancelled; left out, both are as they
    are on the server. All else, such as retries and timeouts, the flow says itself.
    """

    flow: Any
    name: str | None = None
    consumes: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    every: timedelta | None = None
    cron: Sequence[str] = ()
    rrule: Sequence[str] = ()
    timezone: str | None = None
    concurrency_limit: int | None = None
    collision: Literal["enqueue", "cancel_new"] = "enqueue"
    tags: Sequence[str] = ()
    description: str | None = None

    def __post_init__(self) -> None:
        if not (isinstance(getattr(self.flow, "name", None), str) and callable(getattr(self.flow, "fn", None))):
            what = getattr(self.flow, "__name__", type(self.flow).__name__)
            raise DeclarationError(f"Deployment(flow={what}): that is no Prefect flow; decorate it with @flow")
        if self.flow.name in RESERVED_FLOWS:
            raise DeclarationError(
                f"the flow {self.flow.name!r} has the name of one of penstock's: @flow(name=…) gives it another"
            )
        if self.name is not None and self.consumes is not None:
            raise DeclarationError(f"{self._called}: with consumes= it has the dataset's name; leave out name=")
        if self.name is not None and not NAME.match(self.name):
            raise DeclarationError(f"{self._called}: name {self.name!r}: use a-z, 0-9 and _, beginning with a letter")
        if wrong := next(self._wrong(), None):
            raise DeclarationError(f"{self._called}: {wrong}")

    def _wrong(self) -> Iterator[str]:
        if self.every is not None and not isinstance(self.every, timedelta):
            yield f"every {self.every!r} must be a timedelta: every=timedelta(minutes=15)"
        elif self.every is not None and self.every <= timedelta(0):
            yield "every must be more than no time"
        for what in ("cron", "rrule", "tags"):
            found = getattr(self, what)
            if isinstance(found, str):
                yield f"{what} is a list: [{found!r}]"
            elif not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
                yield f"{what} {found!r} must be a list of texts"
        yield from filter(None, (*map(wrong_cron, self.cron), *map(wrong_rule, self.rrule)))
        if self.timezone is not None and not (self.cron or self.rrule):
            yield "timezone says when cron and rrule are; there is neither"
        if self.timezone is not None and (wrong := wrong_zone(self.timezone)):
            yield wrong
        yield from self._wrong_limit()
        yield from self._wrong_retries()
        yield from self._wrong_parameters()

    def _wrong_retries(self) -> Iterator[str]:
        # Prefect's decorator takes a list, as that of tasks, and each run then fails before it begins.
        if isinstance(getattr(self.flow, "retry_delay_seconds", None), list | tuple):
            yield "retry_delay_seconds of a flow is one number; a list of them is for tasks"

    def _wrong_limit(self) -> Iterator[str]:
        limit = self.concurrency_limit
        if limit is not None and (type(limit) is not int or limit < 1):
            yield f"concurrency_limit {limit!r} must be a number of runs, from 1 on"
        if self.collision not in _COLLISIONS:
            yield (
                f"collision {self.collision!r}: use {' or '.join(_COLLISIONS)}"
                f"{did_you_mean(self.collision, _COLLISIONS)}"
            )
        if limit is None and self.collision != "enqueue":
            yield "collision says what becomes of a run beyond concurrency_limit=…; there is none"

    def _wrong_parameters(self) -> Iterator[str]:
        if not isinstance(self.parameters, Mapping):
            yield f"parameters must be values by name, not a {type(self.parameters).__name__}"
        takes = tuple(self.flow.parameters.properties)
        if unknown := sorted(set(self.parameters) - set(takes)):
            yield (
                f"the flow takes no parameter {', '.join(map(repr, unknown))}; it takes: "
                f"{', '.join(takes) or 'none'}{did_you_mean(unknown[0], takes)}"
            )

    @property
    def _called(self) -> str:
        return f"Deployment(flow={self.flow.name})"

    def deployed_name(self, project: str) -> str:
        """Its name below the flow's."""
        below = self.consumes or self.name
        return f"{project}.{below}" if below else project


@dataclass(frozen=True, kw_only=True)
class OwnFlow:
    """A deployment with the file below the project's root that declares it, and the path by which it is imported."""

    declared: Deployment
    file: Path
    entrypoint: str
    line: int | None = None

    @property
    def place(self) -> str:
        """The file, with the line where that is known."""
        return f"{self.file}:{self.line}" if self.line else str(self.file)


def own_flows(file: Path, module: ModuleType, found: Sequence[Any]) -> list[OwnFlow]:
    """What a module's `DEPLOYMENTS` declares. Raises DeclarationError."""
    flows = []
    source = Path(module.__file__ or file).read_text(encoding="utf-8", errors="replace")
    for one in found:
        if not isinstance(one, Deployment):
            raise DeclarationError(
                f"{file}: DEPLOYMENTS holds {getattr(one, 'name', type(one).__name__)!r}, which is no "
                "penstock.Deployment: Deployment(flow=…)"
            )
        name = next((name for name, value in vars(module).items() if value is one.flow), None)
        if name is None:
            raise DeclarationError(
                f"{file}: the flow {one.flow.name!r} is not to be found by a worker: give it a name in this file, such "
                "as `mine = other.with_options(…)`, and say Deployment(flow=mine)"
            )
        line = line_of_call(source, "Deployment", "consumes", one.consumes) if one.consumes is not None else None
        flows.append(OwnFlow(declared=one, file=file, entrypoint=f"{module.__name__}.{name}", line=line))
    return flows


def check_own_flows(flows: Sequence[OwnFlow], dataset_files: Mapping[str, Path]) -> dict[str, str]:
    """The flow that consumes each dataset. Raises DeclarationError for what cannot be together, naming both files."""
    consumers: dict[str, OwnFlow] = {}
    names: dict[tuple[str, str], OwnFlow] = {}
    for one in flows:
        declared = one.declared
        key = (declared.flow.name, declared.consumes or declared.name or "")
        if (earlier := names.setdefault(key, one)) is not one:
            raise DeclarationError(
                f"{one.file}: {earlier.file} deploys the flow {declared.flow.name} by that name too; give one of the "
                "two a name="
            )
        if declared.consumes is None:
            continue
        if declared.consumes not in dataset_files:
            known = ", ".join(dataset_files) or "none"
            raise DeclarationError(
                f"{one.place}: the flow {declared.flow.name} consumes the dataset {declared.consumes!r}, which flows/ "
                f"lacks; there are: {known}{did_you_mean(declared.consumes, dataset_files)}"
            )
        if (other := consumers.setdefault(declared.consumes, one)) is not one:
            raise DeclarationError(
                f"{one.file}: the flow {declared.flow.name} consumes {declared.consumes}, and so does "
                f"{other.declared.flow.name} in {other.file}; what is new is given out once, so only one of them can"
            )
    return {name: one.declared.flow.name for name, one in consumers.items()}
