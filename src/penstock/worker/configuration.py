"""What Prefect is told of a worker of the type `penstock`: how a run is started, and what a deployment may choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorkerResult
from pydantic import Field, PrivateAttr

from penstock.worker import child

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse


class PenstockJobConfiguration(BaseJobConfiguration):
    """How a run is started."""

    working_dir: str | None = Field(default=None)
    isolation: Literal["fork", "fresh"] = Field(default="fork")
    _entrypoint: str | None = PrivateAttr(default=None)

    @property
    def entrypoint(self) -> str | None:
        """The module path of the run's flow; None where only Prefect's own loader can find it."""
        return self._entrypoint

    @classmethod
    async def resolve_for_flow_run(
        cls, flow_run: FlowRun, *, client: PrefectClient, deployment: DeploymentResponse | None = None, **others: Any
    ) -> Self:
        """As Prefect's own, which reads the deployment too, but keeps nothing of it."""
        if deployment is None and flow_run.deployment_id:
            deployment = await client.read_deployment(flow_run.deployment_id)
        configuration = await super().resolve_for_flow_run(flow_run, client=client, deployment=deployment, **others)
        configuration._entrypoint = _entrypoint_of(deployment)
        return configuration


class PenstockVariables(BaseVariables):
    """What a deployment may choose."""

    working_dir: str | None = Field(default=None, description="The folder in which the run works.")
    isolation: Literal["fork", "fresh"] = Field(
        default="fork", description="'fork' starts in milliseconds; 'fresh' starts a new interpreter."
    )


class PenstockWorkerResult(BaseWorkerResult):
    """How a run's process ended."""


def _entrypoint_of(deployment: DeploymentResponse | None) -> str | None:
    if deployment is None or deployment.pull_steps or not deployment.entrypoint:
        return None
    return deployment.entrypoint if child.is_module_path(deployment.entrypoint) else None
