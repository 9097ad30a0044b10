"""Flows of a project's own as deployments: what `DEPLOYMENTS` in a file of `flows/` holds. Does not import Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.errors import DeclarationError
from penstock.model import NAME

# The flows that penstock deploys itself.
RESERVED_FLOWS = ("ingest", "verify", "retain")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A Prefect flow of the project's own, deployed as `<flow>/<project>`, or `<flow>/<project>.<name>`.

    With `consumes` it takes what is new in that dataset (`penstock.claim`) in the place of `ingest`, is called
    `<flow>/<project>.<dataset>`, and has the dataset's schedules too. `every`, `cron` and `rrule` are schedules, any
    number of them at once; `timezone` is that of `cron` and `rrule`. All else, such as retries and timeouts, the flow
    says itself.
    """

    flow: Any
    name: str | None = None
    consumes: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    every: timedelta | None = None
    cron: Sequence[str] = ()
    rrule: Sequence[str] = ()
    timezone: str | None = None
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
        if self.every is not None and self.every <= timedelta(0):
            raise DeclarationError(f"{self._called}: every must be more than no time")
        for what in ("cron", "rrule", "tags"):
            if isinstance(getattr(self, what), str):
                raise DeclarationError(f"{self._called}: {what} is a list: [{getattr(self, what)!r}]")
        if self.timezone is not None and not (self.cron or self.rrule):
            raise DeclarationError(f"{self._called}: timezone says when cron and rrule are; there is neither")

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


def own_flows(file: Path, module: ModuleType, found: Sequence[Any]) -> list[OwnFlow]:
    """What a module's `DEPLOYMENTS` declares. Raises DeclarationError."""
    flows = []
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
        flows.append(OwnFlow(declared=one, file=file, entrypoint=f"{module.__name__}.{name}"))
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
                f"{one.file}: the flow {declared.flow.name} consumes the dataset {declared.consumes!r}, which flows/ "
                f"lacks; there are: {known}"
            )
        if (other := consumers.setdefault(declared.consumes, one)) is not one:
            raise DeclarationError(
                f"{one.file}: the flow {declared.flow.name} consumes {declared.consumes}, and so does "
                f"{other.declared.flow.name} in {other.file}; what is new is given out once, so only one of them can"
            )
    return {name: one.declared.flow.name for name, one in consumers.items()}
