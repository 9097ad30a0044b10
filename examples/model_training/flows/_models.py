"""Models in the object store: `models/rain/<model>.joblib`, its report beside it as JSON, and `current.json`.

Loading a model of joblib's is running code (it is a pickle). The checksum finds a file that was cut off, mixed up or
changed alone; who may write to the bucket can change both, so give that to nobody you would not let run code here.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flows._rain import Day, features, is_wet

import penstock

# scikit-learn is imported where it is used: `penstock status` reads these files too, and would wait for it.

_FOLDER = "models/rain"
_JUDGED = "SELECT * FROM rain_models ORDER BY decided_at DESC"


def keep_model(model: str, fitted: Any, report: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a model and its report, which is returned with the checksum in it."""
    import joblib

    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    whole = {"model": model, **report, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    penstock.keep(f"{_FOLDER}/{model}.joblib", buffer.getvalue())
    penstock.keep(f"{_FOLDER}/{model}.json", json.dumps(whole, indent=2).encode())
    return whole


def load_model(model: str) -> Any:
    """The fitted model. Raises ValueError where it is not what its report says."""
    import joblib

    report = json.loads(penstock.kept(f"{_FOLDER}/{model}.json"))
    data = penstock.kept(f"{_FOLDER}/{model}.joblib")
    if hashlib.sha256(data).hexdigest() != report["sha256"]:
        raise ValueError(f"{_FOLDER}/{model}.joblib is not the file that {model}.json is about; train it again")
    return joblib.load(io.BytesIO(data))


def current_model() -> str:
    """The model that is to be used. Raises penstock.ObjectMissing where none was promoted yet."""
    return json.loads(penstock.kept(f"{_FOLDER}/current.json"))["model"]


def score(fitted: Any, days: Sequence[Day]) -> float:
    """The share of these days that it is right about, wet and dry ones counting the same."""
    from sklearn.metrics import balanced_accuracy_score

    said = fitted.predict([features(day) for day in days])
    return float(balanced_accuracy_score([is_wet(day) for day in days], said))


def judged() -> list[dict[str, Any]]:
    """Every model about which was decided, the latest first: the truth, of which `current.json` is a copy."""
    try:
        return penstock.query(_JUDGED).to_pylist()
    except penstock.TableMissing:
        return []


def champion_of(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The one that was promoted last, of what `judged` returns."""
    return next((row["model"] for row in rows if row["promoted"]), None)


def point_at_champion() -> str | None:
    """Have `current.json` name the champion, also where another run promotes one meanwhile; returns it."""
    found = champion_of(judged())
    while found is not None:
        penstock.keep(f"{_FOLDER}/current.json", json.dumps({"model": found}).encode())
        before, found = found, champion_of(judged())
        if found == before:
            break
    return found
