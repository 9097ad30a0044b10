"""Every load of days is followed by a model trained on them; its report is handed in to be judged (promote.py)."""

import json
from typing import Annotated, Any

from flows._models import judged, keep_model, score
from flows._rain import COLUMNS, Day, features, fingerprint, is_wet, split, too_little
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import Field

import penstock
from penstock import Deployment


@task(retries=2, retry_delay_seconds=5)
def days() -> list[Day]:
    """All days that are loaded by now, in their order."""
    return penstock.query(f"SELECT {', '.join(COLUMNS)} FROM weather ORDER BY date").to_pylist()


@task(cache_policy=NO_CACHE)
def fit(training: list[Day], strength: float) -> Any:
    """A fitted pipeline; the same days make the same one."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength))
    return model.fit([features(day) for day in training], [is_wet(day) for day in training])


@flow(timeout_seconds=900)
def train(strength: Annotated[float, Field(gt=0)] = 1.0):
    """Trains on all days but those held out, and keeps the model. It is used only once it is promoted."""
    found = split(days())
    if why := too_little(found):
        return Completed(name="Skipped", message=why)
    model = fingerprint(found.training, {"strength": strength, "features": 5})
    if model in {row["model"] for row in judged()}:
        return Completed(name="Skipped", message=f"{model} was trained on these days, and judged")
    fitted = fit(found.training, strength)
    report = {
        "strength": strength,
        "training_days": len(found.training),
        "first_day": found.training[0]["date"].isoformat(),
        "last_day": found.training[-1]["date"].isoformat(),
        "held_out_days": len(found.held_out),
        "score_then": round(score(fitted, found.held_out), 4),
    }
    whole = keep_model(model, fitted, report)
    # Last: a run that dies before it is made up for by the next one, and the same report again is not new.
    penstock.land(f"rain_models/{model}.json", json.dumps(whole))
    return Completed(name="Trained", message=f"{model}: {whole['score_then']} on {len(found.held_out)} held-out days")


# Every load runs it (automations/models.py). An automation's action is done at most once: each morning makes up for one
# that was lost.
DEPLOYMENTS = [Deployment(flow=train, cron=["0 5 * * *"])]
