"""docker-compose.yml run for real, without docker, until what came in by each way is in the warehouse, once."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.objects import ObjectStore
from tests.acceptance.composed import Composition, composed
from tests.acceptance.running import weather
from tests.compose_file import ROOT, start_order
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

PUSH = ROOT / "examples" / "data" / "github-webhooks" / "push.1.json"
# The longest way: a killed run's claim comes back when its lease of 30 s is over.
WITHIN_SECONDS = 90.0

# What one writes into docker-compose.override.yml for a warehouse in PostgreSQL. A None removes.
URL = "postgresql+psycopg://ledger:${DB_LEDGER_PASSWORD:?run python3 docker/make_env.py}@postgres:5432/warehouse"
IN_POSTGRES: dict[str, Any] = {
    "worker": {"environment": {"PENSTOCK_WAREHOUSE_URL": URL}},
    "query": {"environment": {"PENSTOCK_WAREHOUSE_URL": URL}, "network_mode": None, "networks": ["back"]},
}


@pytest.mark.parametrize(
    "override", [{}, pytest.param(IN_POSTGRES, marks=pytest.mark.long)], ids=["duckdb", "postgres"]
)
def test_the_compose_file_does_what_up_does(override: dict[str, Any]) -> None:
    """Services started by their own commands load files, deliveries and PUTs once, through kills, and end in time."""
    with composed(override) as it:
        before = _files(it.app)
        it.up()
        _drop(it, "first.csv", days=40, year=2031)
        _loaded(it, "weather/first.csv", 40)

        delivery = _post(it)
        rows = partial(it.query, f"SELECT event FROM github WHERE delivery = '{delivery}'")
        assert wait_for(rows, seconds=WITHIN_SECONDS, what="the delivery is in the warehouse") == [{"event": "push"}]

        _put(it, "weather/put.csv", days=3, year=2032)
        _loaded(it, "weather/put.csv", 3)
        assert it.facts("sensors", "why", "weather/put.csv")[0]["via"] == "notification"

        _drop(it, "racing.csv", days=25, year=2033)
        it.kill("worker")
        it.kill("relay")
        _drop(it, "down.csv", days=12, year=2034)
        recorded = partial(it.facts, "sensors", "why", "weather/down.csv")
        wait_for(recorded, seconds=WITHIN_SECONDS, what="a file is recorded while nothing loads")
        it.start("relay")
        it.start("worker")
        _loaded(it, "weather/racing.csv", 25)
        _loaded(it, "weather/down.csv", 12)
        wait_for(partial(_quiet, it), seconds=WITHIN_SECONDS, what="nothing waits any more")
        everything = it.query("SELECT count(*) AS n FROM weather") + it.query("SELECT count(*) AS n FROM github")
        assert everything == [{"n": 40 + 3 + 25 + 12}, {"n": 1}]

        stopping = [name for name in reversed(start_order(it.services)) if name != "migrate"]
        codes = {name: it.stop(name) for name in stopping}
        # uvicorn ends by the signal that it was asked to end by; a shell that does not pass it on would, too.
        by_signal = {"webhook", "prefect"}
        assert codes == {name: -signal.SIGTERM if name in by_signal else 0 for name in codes}
        # /app is read-only there.
        assert _files(it.app) == before


def _drop(it: Composition, name: str, *, days: int, year: int) -> None:
    inbox = it.project / "inbox"
    there = inbox.stat()
    (inbox / "weather").mkdir(exist_ok=True)
    draft = it.project / name
    draft.write_text(weather(days, year=year))
    for path in (inbox / "weather", draft):
        os.chown(path, there.st_uid, there.st_gid)
    draft.rename(inbox / "weather" / name)


def _post(it: Composition) -> str:
    """Post a push of GitHub's, signed by hand; returns the delivery's id."""
    body, delivery = PUSH.read_bytes(), str(uuid.uuid4())
    signature = hmac.new(it.variables["GITHUB_WEBHOOK_SECRET"].encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": delivery,
        "x-hub-signature-256": f"sha256={signature}",
    }
    url = f"http://127.0.0.1:{it.variables['PORT_WEBHOOK']}/hooks/github"
    answer = httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == 202, answer.text
    return delivery


def _put(it: Composition, key: str, *, days: int, year: int) -> None:
    store = ObjectStore(
        f"127.0.0.1:{it.variables['PORT_STORE']}",
        it.variables["PENSTOCK_S3_ACCESS_KEY"],
        it.variables["PENSTOCK_S3_SECRET_KEY"],
    )
    store.put_bytes("landing", key, weather(days, year=year).encode())


def _loaded(it: Composition, key: str, rows: int) -> None:
    sql = f"SELECT count(*) AS n FROM weather WHERE _penstock_object LIKE 'landing/{key}@%'"

    def there() -> bool:
        found = it.query(sql)
        return bool(found) and found[0]["n"] > 0

    wait_for(there, seconds=WITHIN_SECONDS, what=f"{key} is in the warehouse")
    assert it.query(sql) == [{"n": rows}]


def _quiet(it: Composition) -> bool:
    """Whether nothing waits: neither objects nor wake-ups nor events."""
    status = it.facts("relay", "status")
    waiting = [one for one in status["datasets"] for state in ("pending", "claimed") if one["counts"].get(state)]
    return not waiting and not status["wakeups"] and not status["unsent_events"]


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
