"""What was decided, as runs in MLflow: at MLFLOW_TRACKING_URI, else in `mlflow.db` below penstock's own folder."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXPERIMENT = "rain"
_PARAMS = ("strength", "training_days", "first_day", "last_day", "sha256")
_METRICS = ("score", "champion_score", "score_then", "held_out_days")


def show(rows: Sequence[Mapping[str, Any]]) -> int:
    """Have MLflow show these verdicts; returns how many it did not yet. Without MLflow nothing is done.

    At least once: of two runs at the same time each may show a verdict.
    """
    if not rows or find_spec("mlflow") is None:
        return 0
    # It would tell its makers how it is used.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=where(os.environ))
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    known = {run.data.tags.get("verdict") for run in client.search_runs([experiment], max_results=1000)}
    new = [row for row in rows if verdict(row) not in known]
    for row in new:
        tags = {"verdict": verdict(row), "promoted": str(row["promoted"]), "reason": row["reason"]}
        at = int(row["decided_at"].timestamp() * 1000)
        run = client.create_run(experiment, start_time=at, run_name=row["model"], tags=tags).info.run_id
        for name in _PARAMS:
            client.log_param(run, name, row[name])
        for name in _METRICS:
            if row.get(name) is not None:
                client.log_metric(run, name, row[name], timestamp=at)
        client.set_terminated(run, end_time=at)
    return len(new)


def verdict(row: Mapping[str, Any]) -> str:
    """What a verdict is found again by: a model may be judged a second time."""
    return f"{row['model']} {row['decided_at'].isoformat()}"


def where(environment: Mapping[str, str]) -> str:
    """MLflow's address."""
    home = Path(environment.get("PENSTOCK_HOME", ".penstock")).resolve()
    return environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
