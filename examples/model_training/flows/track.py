"""Each verdict becomes a run in MLflow, where it is installed: at MLFLOW_TRACKING_URI, or in `.penstock/mlflow.db`."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flows._models import judged
from prefect import flow
from prefect.states import Completed

from penstock import Deployment

EXPERIMENT = "rain"
PARAMETERS = ("strength", "training_days", "first_day", "last_day", "sha256")
METRICS = ("score", "champion_score", "score_then", "held_out_days")


@flow(retries=2, retry_delay_seconds=20, timeout_seconds=300)
def track():
    """Has MLflow show those of the latest verdicts that it does not yet; whether it can, no model waits for."""
    if find_spec("mlflow") is None:
        return Completed(name="Skipped", message="MLflow is not installed")
    # It would tell its makers how it is used.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=where())
    experiment = client.get_experiment_by_name(EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    known = {run.data.tags.get("verdict") for run in client.search_runs([number], max_results=1000)}
    new = [row for row in judged()[:100] if verdict(row) not in known]
    for row in new:
        show(client, number, row)
    return Completed(name="Tracked" if new else "Skipped", message=f"{len(new)} verdicts")


def show(client: Any, experiment: str, row: Mapping[str, Any]) -> None:
    """One of MLflow's runs, at the time of the verdict."""
    at = int(row["decided_at"].timestamp() * 1000)
    tags = {"promoted": str(row["promoted"]), "reason": row["reason"]}
    run = client.create_run(experiment, start_time=at, run_name=row["model"], tags=tags).info.run_id
    for name in PARAMETERS:
        client.log_param(run, name, row[name])
    for name in METRICS:
        if row.get(name) is not None:
            client.log_metric(run, name, row[name], timestamp=at)
    client.set_terminated(run, end_time=at)
    # Last, so that what a run left half done is shown again.
    client.set_tag(run, "verdict", verdict(row))


def verdict(row: Mapping[str, Any]) -> str:
    """What a verdict is found again by: a model may be judged a second time."""
    return f"{row['model']} {row['decided_at'].isoformat()}"


def where() -> str:
    """MLflow's address. By default a database: its store in plain files is refused without a further setting."""
    home = Path(os.environ.get("PENSTOCK_HOME", ".penstock")).resolve()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


# One at a time: two would both find that MLflow lacks a verdict. Each morning makes up for one that was lost.
DEPLOYMENTS = [Deployment(flow=track, concurrency_limit=1, cron=["0 6 * * *"])]
