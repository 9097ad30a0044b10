"""Each model that was trained is compared with the champion, on the held-out days as they are now.

It consumes a dataset so that it is done one at a time: of two models trained at once the second is compared with the
first, if that was promoted, and a run that lost the dataset to another has decided nothing. The table `rain_models` is
the history: every model with its verdict.
"""

from datetime import UTC, datetime
from typing import Any

from flows._models import champion_of, judged, load_model, point_at_champion, score
from flows._rain import Day, Verdict, judge, split
from flows.train import days
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

DATASET = Dataset(
    name="rain_models", columns={"model": "VARCHAR", "sha256": "VARCHAR", "first_day": "DATE", "last_day": "DATE"}
)


@task
def compare(model: str, champion: str | None, held_out: list[Day]) -> dict[str, Any]:
    """The verdict on a model, and the scores behind it."""
    scores = {name: score(load_model(name), held_out) for name in {model, champion} - {None}}
    verdict = judge(scores[model], champion, scores.get(champion))
    if model == champion:
        # Its report came again, such as by `penstock replay`.
        verdict = Verdict(promoted=True, reason=f"{scores[model]:.3f}: it is the champion")
    found = {
        **verdict._asdict(),
        "score": scores[model],
        "judged_by_days": len(held_out),
        "decided_at": datetime.now(UTC),
    }
    # For the first one these are left out: a column that holds nothing yet would become one of texts.
    return found if champion is None else {**found, "champion": champion, "champion_score": scores[champion]}


@flow(timeout_seconds=900)
def promote():
    """Judges what was handed in. Ends as Promoted, Kept or Skipped."""
    decided = []
    with penstock.claim("rain_models") as claim:
        champion = champion_of(judged()) if claim else None
        held_out = split(days()).held_out if claim else []
        for one in claim.objects:
            rows = []
            for report in one.arrow().to_pylist():
                rows.append({**report, **compare(report["model"], champion, held_out)})
                champion = report["model"] if rows[-1]["promoted"] else champion
            claim.load(rows, of=one)
            decided += rows
    # Only now it is decided. A run that dies here is made up for by the next one, which each morning has.
    current = point_at_champion()
    if not decided:
        return Completed(name="Skipped", message="no model was handed in, or another run has it")
    latest = judged()[:100]
    shown = [{name: str(value) for name, value in row.items() if not name.startswith("_")} for row in latest]
    create_table_artifact(shown, key="rain-models", description=f"The latest first; in use is {current}.")
    said = "; ".join(f"{row['model']}: {row['reason']}" for row in decided)
    return Completed(name="Promoted" if any(row["promoted"] for row in decided) else "Kept", message=said)


DEPLOYMENTS = [Deployment(flow=promote, consumes="rain_models", cron=["30 5 * * *"])]
