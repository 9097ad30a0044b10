"""The project that is measured: as a user would write it, one dataset for each kind of bench."""

from __future__ import annotations

from pathlib import Path

SECRET = "whsec_" + "aG93IGZhc3QgaXMgaXQgcmVhbGx5PyBsZXQgdXMgc2Vl"
SECRET_NAME = "BENCH_WEBHOOK_SECRET"

# Datasets that load as soon as something arrives, and datasets whose runs the bench creates itself.
_AUTOMATED = ("drops", "burst", "found", "large_csv", "large_parquet", "posts")
_BY_HAND = ("known", "held")

_DATASET = """\
from penstock import Dataset

DATASET = Dataset(
    name="{name}",
    columns={{"id": "BIGINT", "name": "VARCHAR", "amount": "DOUBLE", "moment": "TIMESTAMP"}},
)
"""
_POSTED = """\
from penstock import Dataset

DATASET = Dataset(name="{name}", columns={{"id": "BIGINT"}})
"""
_SOURCE = """\
from penstock import Source, standard_webhooks

SOURCE = Source(name="{name}", dataset="{name}", verify=standard_webhooks("BENCH_WEBHOOK_SECRET"))
"""
_ON_ARRIVAL = """\
from penstock import on_arrival

AUTOMATIONS = [on_arrival(dataset) for dataset in {names!r}]
"""
_INBOX = """\
from penstock import Folder

SENSOR = Folder()
"""
_LANDING = """\
from datetime import timedelta

from penstock import Bucket

SENSOR = Bucket(every=timedelta(seconds={every}))
"""


def write(folder: Path, *, sweep_seconds: int = 30) -> None:
    """Write the declarations; a sweep every 30 s is the default of a bucket."""
    posted = ("posts", "held")
    texts = {f"flows/{name}.py": _DATASET.format(name=name) for name in (*_AUTOMATED, *_BY_HAND)}
    texts |= {f"flows/{name}.py": _POSTED.format(name=name) for name in posted}
    texts |= {f"webhook/{name}.py": _SOURCE.format(name=name) for name in posted}
    texts |= {
        "sensors/inbox.py": _INBOX,
        "sensors/landing.py": _LANDING.format(every=sweep_seconds),
        "automations/on_arrival.py": _ON_ARRIVAL.format(names=_AUTOMATED),
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
