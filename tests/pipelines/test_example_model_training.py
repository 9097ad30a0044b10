"""examples/model_training as its user runs it: days are dropped, and each load is followed by a model and a verdict."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from penstock.errors import QueryRefused
from penstock.model import KEPT_PREFIX
from penstock.settings import load_settings
from penstock.wiring import open_store, open_warehouse
from tests.acceptance.running import ROOT, WITHIN_SECONDS, Up
from tests.pipelines.running import example
from tests.waiting import wait_for

# Long: .ci/run shows the same ways of the engine by the other examples.
pytestmark = [pytest.mark.slow, pytest.mark.long]

WEATHER = ROOT / "examples" / "data" / "seattle-weather.csv"
# Trained on 2012, on 2012 with a mislabelled 2013, and on both as they were.
FIRST, MISLED, BOTH = "3a02481d2fdc", "e97f4fe07d26", "f70401d1aab4"
VERDICTS = "SELECT model, promoted, round(score, 4), champion, round(champion_score, 4) FROM rain_models"


@dataclass(kw_only=True)
class Rain:
    """The example at work."""

    up: Up

    def drop(self, *arguments: str) -> None:
        """As its user does."""
        subprocess.run([sys.executable, "drop.py", str(WEATHER), *arguments], cwd=self.up.folder, check=True)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the warehouse answers; nothing where there is no such table yet."""
        try:
            return list(open_warehouse(load_settings(self.up.folder)).query(sql, limit=1000).rows)
        except QueryRefused:
            return []

    def kept(self, name: str) -> bytes:
        """What the project keeps under a name."""
        settings = load_settings(self.up.folder)
        return open_store(settings).read(settings.bucket, f"{KEPT_PREFIX}model_training/models/rain/{name}")

    def keep(self, name: str, data: bytes) -> None:
        """Put something in the place of what is kept."""
        settings = load_settings(self.up.folder)
        key = f"{KEPT_PREFIX}model_training/models/rain/{name}"
        open_store(settings).put_bytes(settings.bucket, key, data)

    def current(self) -> str:
        """The model in use."""
        return str(json.loads(self.kept("current.json"))["model"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the Prefect server answers."""
        made = self.up.made()
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}{path}"
        return httpx.request(method, url, json=body, auth=(user, password), timeout=20).raise_for_status().json()

    def run(self, deployment: str, **parameters: Any) -> None:
        """Have a deployment run now."""
        found = self.ask("GET", f"/deployments/name/{deployment}")["id"]
        self.ask("POST", f"/deployments/{found}/create_flow_run", {"parameters": parameters})

    def ended(self, flow: str, state: str, saying: str = "") -> dict[str, Any]:
        """Wait for a run of the flow that ended in a state with a message."""

        def found() -> list[dict[str, Any]]:
            runs = self.ask("POST", "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
            return [run for run in runs if run["state_name"] == state and saying in run["state"]["message"]]

        return wait_for(found, seconds=WITHIN_SECONDS, what=f"a run of {flow} is {state}: {saying}")[0]

    def artifact(self) -> list[dict[str, Any]]:
        """The history of models, as Prefect shows it."""
        (found,) = self.ask("POST", "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["rain-models"]}}})
        shown: list[dict[str, Any]] = json.loads(found["data"])
        return shown


@pytest.fixture(scope="module")
def rain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rain]:
    """The example, for all tests here, which build on one another."""
    with example("model_training", tmp_path_factory.mktemp("rain")) as up:
        yield Rain(up=up)


def test_a_month_is_too_little_to_learn_from(rain: Rain) -> None:
    """The run that the load starts ends as skipped, and says what is missing."""
    rain.drop("2012-01")
    run = rain.ended("train", "Skipped")
    assert run["state"]["message"] == "26 days for training; 100 are needed"
    assert run["created_by"]["type"] == "AUTOMATION"
    assert rain.rows("SELECT * FROM rain_models") == []


def test_the_first_model_is_promoted(rain: Rain) -> None:
    """It is kept with its report, its checksum is right, and MLflow has it too."""
    rain.drop("2012")
    run = rain.ended("promote", "Promoted")
    assert run["state"]["message"] == f"{FIRST}: 0.787: it is the first one"
    assert rain.rows("SELECT model, promoted, round(score, 4) FROM rain_models") == [(FIRST, True, 0.7872)]
    assert rain.current() == FIRST
    report = json.loads(rain.kept(f"{FIRST}.json"))
    assert report.pop("sha256") == hashlib.sha256(rain.kept(f"{FIRST}.joblib")).hexdigest()
    assert report == {
        "model": FIRST,
        "strength": 1.0,
        "training_days": 277,
        "first_day": "2012-01-01",
        "last_day": "2012-12-31",
        "held_out_days": 89,
        "score_then": 0.7872,
    }


def test_a_model_that_learnt_from_wrong_labels_is_kept_out(rain: Rain) -> None:
    """The checks let mislabelled days through; the comparison does not let the model, and says why."""
    rain.drop("2013", "--mislabelled")
    run = rain.ended("promote", "Kept")
    assert run["state"]["message"] == f"{MISLED}: 0.511 against 0.544 of {FIRST}: no better"
    assert rain.rows(f"{VERDICTS} WHERE model = '{MISLED}'") == [(MISLED, False, 0.5109, FIRST, 0.5441)]
    assert rain.current() == FIRST
    assert {row["model"]: row["promoted"] for row in rain.artifact()} == {FIRST: "True", MISLED: "False"}


def test_of_models_trained_at_once_the_best_is_in_use(rain: Rain) -> None:
    """The corrected year takes the place of the wrong one; whichever of three models is judged last, the best stays."""
    rain.drop("2013")
    rain.up.ends_as("weather/2013.csv", "loaded")
    for strength in (10, 0.3):
        rain.run("train/model_training", strength=strength)
    found = wait_for(
        lambda: rows if len(rows := rain.rows(f"{VERDICTS} ORDER BY decided_at")) == 5 else [],
        seconds=WITHIN_SECONDS,
        what="all three are judged",
    )
    scores = {row[0]: row[2] for row in found[2:]}
    assert sorted(scores.values()) == [0.7929, 0.8192, 0.8337]
    assert scores[BOTH] == 0.8192
    champion = FIRST
    for model, promoted, score, compared, compared_score in found[2:]:
        assert (compared, compared_score) == (champion, scores.get(champion, 0.7766))
        assert promoted == (score >= compared_score + 0.01)
        champion = model if promoted else champion
    assert scores[champion] == 0.8337
    wait_for(lambda: rain.current() == champion, seconds=WITHIN_SECONDS, what="the best is in use")


def test_the_same_days_again_train_nothing(rain: Rain) -> None:
    """A run such as each morning's finds that its model was judged, and says so."""
    rain.run("train/model_training")
    rain.ended("train", "Skipped", f"{BOTH} was trained on these days, and judged")


def test_forecasts_are_answered_by_the_model_in_use(rain: Rain) -> None:
    """A file that is not the one of the report is not loaded; with the right one every day has its answer."""
    champion = rain.current()
    model = rain.kept(f"{champion}.joblib")
    rain.keep(f"{champion}.joblib", model + b"\0")
    rain.drop("2015-06", "--unlabelled")
    rain.ended("predict", "Failed", f"{champion}.joblib is not the file that {champion}.json is about")
    assert rain.rows("SELECT * FROM forecasts") == []
    rain.keep(f"{champion}.joblib", model)
    rain.run("predict/model_training.forecasts")
    rain.up.ends_as("forecasts/2015-06.csv", "loaded")
    found = rain.rows("SELECT count(*), count(*) FILTER (wet), min(model), max(model) FROM forecasts")
    assert found == [(30, 3, champion, champion)]


def test_mlflow_has_every_verdict_once(rain: Rain) -> None:
    """In the end, after what ran at once: asked by its own client for scores, parameters, and why."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{rain.up.home / 'mlflow.db'}")

    def tracked() -> dict[str, Any]:
        experiment = client.get_experiment_by_name("rain")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        by_model = {run.info.run_name: run.data for run in runs}
        assert len(by_model) == len(runs)
        return by_model if len(runs) == 5 else {}

    runs = wait_for(tracked, seconds=WITHIN_SECONDS, what="MLflow has all five")
    assert round(runs[MISLED].metrics["score"], 4) == 0.5109
    assert round(runs[MISLED].metrics["champion_score"], 4) == 0.5441
    assert runs[MISLED].tags["promoted"] == "False"
    assert runs[FIRST].params["training_days"] == "277"
    assert not (rain.up.folder / "mlruns").exists()
