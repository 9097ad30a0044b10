"""Days without a label are dropped, and become rows with the champion's answer: how a model is used."""

from flows._models import current_model, load_model
from flows._rain import features
from prefect import flow
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

DATASET = Dataset(
    name="forecasts",
    columns={"date": "DATE", "temp_max": "DOUBLE", "temp_min": "DOUBLE", "wind": "DOUBLE"},
    checks={"measured": "date IS NOT NULL AND temp_max IS NOT NULL AND temp_min IS NOT NULL AND wind IS NOT NULL"},
    write="merge",
    key=["date"],
)


@flow(timeout_seconds=300)
def predict():
    """Answers for the days of one batch. Where no model was promoted yet it fails, and they wait."""
    # Outside of the block: that there is no model is no fault of the files, and not to count as one.
    model = current_model()
    fitted = load_model(model)
    with penstock.claim("forecasts") as claim:
        for one in claim.objects:
            days = one.arrow().to_pylist()
            chances = fitted.predict_proba([features(day) for day in days])[:, 1] if days else []
            answers = [{"wet": bool(p > 0.5), "chance": round(float(p), 3), "model": model} for p in chances]
            claim.load([day | answer for day, answer in zip(days, answers, strict=True)], of=one)
        taken = len(claim.objects)
    return Completed(name="Predicted" if taken else "Skipped", message=f"{taken} files, by {model}")


DEPLOYMENTS = [Deployment(flow=predict, consumes="forecasts")]
