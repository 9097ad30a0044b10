"""The simulation and a real Prefect server agree: which triggers fire, how often, on which events, with which labels.

docs/design/simulate.md has the cases by kind, and where the two cannot agree.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from penstock.automations.engine import Answer, Engine
from penstock.automations.samples import sample
from penstock.events import DATASET_LOADED, DATASET_PENDING
from tests.integration.prefect_parts import PrefectParts, prefect_parts
from tests.integration.simulate_cases import CASES, WAVES, Case
from tests.real_store import real_store
from tests.waiting import wait_for

# Fast enough to test, and nothing of what is compared depends on it.
_QUICK = {
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.1",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
}
_SIMULATE = "import pathlib, penstock.cli.simulate as one; one.simulate(obj=pathlib.Path('.'))"
_TRIGGERED = "prefect.automation.triggered"
# What the simulated time between two waves must be more than.
_GAP = timedelta(seconds=1)
# Before the first wave, so that what occurs later than others is not in the future.
_BEFORE = timedelta(seconds=15)

Fired = tuple[str | None, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, kw_only=True)
class Both:
    """What the server and the simulation made of the cases, by the case's name: triggering event and labels."""

    server: dict[str, list[Fired]]
    simulated: dict[str, list[Fired]]
    parts: PrefectParts


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Every case, at once."""
    engine = Engine()
    folder = tmp_path_factory.mktemp("contract")
    try:
        with real_store("embedded") as store, prefect_parts(folder, store) as parts:
            parts.start_server(_QUICK)
            began = datetime.now(UTC)
            ids = {parts.ask("POST", "/automations/", case.automation)["id"]: case.name for case in CASES}
            marker = _Marker(parts)
            for number in range(WAVES):
                _post(parts, number, before=began)
                marker.pass_by()
            absent = next(found for found, name in ids.items() if name == "absent")
            wait_for(lambda: _fired(parts, absent), seconds=40, what="the server finds that nothing happened")
            # What would fire besides is due in the same second; the marker goes last.
            marker.pass_by()
            until = datetime.now(UTC)
            events = _all_events(parts)
            own = [event for event in events if event["event"].partition(".")[0] in set(ids.values())]
            assert len(own) == sum(len(case.events) for case in CASES)
            answer = engine.ask([case.automation for case in CASES], own, start=began, until=until)
            yield Both(server=_by_case(events, ids), simulated=_simulated(answer), parts=parts)
    finally:
        engine.close()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_simulation_agrees_with_a_real_server(both: Both, case: Case) -> None:
    """It fires as often, on the same events, with the same labels."""
    server, simulated = both.server.get(case.name, []), both.simulated[case.name]
    if case.first:
        server, simulated = server[:1], simulated[:1]
    assert simulated == server
    if case.fires is not None:
        assert len(server) == case.fires


def test_the_cases_are_many_and_fire() -> None:
    """At least 60 of them, and neither all nor none fires."""
    told = [case.fires for case in CASES if case.fires is not None]
    assert len(CASES) >= 60
    assert told.count(0) > 20
    assert len(told) - told.count(0) > 40


@pytest.mark.slow
@pytest.mark.long
def test_the_generated_cases_fire(both: Both) -> None:
    """What nobody thought of fires in part, too: else nothing would be compared."""
    names = [case.name for case in CASES if case.fires is None]
    firing = [name for name in names if both.server.get(name)]
    assert len(firing) >= len(names) / 4
    assert len(firing) < len(names)


@pytest.mark.slow
@pytest.mark.long
def test_the_code_is_compared_with_what_is_applied_on_recorded_events(both: Both) -> None:
    """What the server recorded is read to its last page; what the change takes away and adds is told."""
    parts = both.parts
    trigger = {"type": "event", "expect": [DATASET_LOADED], "posture": "Reactive", "threshold": 1, "within": 0}
    applied = {"name": "old", "tags": ["penstock:demo"], "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    foreign = {**applied, "name": "foreign", "tags": []}
    for one in (applied, foreign):
        parts.ask("POST", "/automations/", one)
    recorded = _total(parts)
    now = datetime.now(UTC)
    samples = [
        *(sample(DATASET_LOADED, "sales", project="demo", occurred=now) for _ in range(5)),
        sample(DATASET_PENDING, "sales", project="demo", occurred=now),
    ]
    post(parts, samples)
    # The 5 firings of both, too.
    wait_for(lambda: _total(parts) >= recorded + 16, seconds=30, what="the server has recorded them")
    done = subprocess.run(
        [sys.executable, "-c", _SIMULATE, "--last", "1h", "--diff", "--json"],
        env={**parts.env, "PENSTOCK_PROJECT_DIR": str(parts.folder)},
        cwd=parts.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["events"] > recorded
    assert [(one["name"], len(one["firings"])) for one in told["automations"]] == [("demo: sales on arrival", 1)]
    assert [effect["automation"] for effect in told["diff"]["gone"]] == ["old"] * 5
    (new,) = told["diff"]["new"]
    assert new["rendered"]["action"]["deployment"] == "ingest/demo.sales"
    assert new["firing"]["event"] == samples[-1]["id"]


class _Marker:
    """An event behind others: when its automation has fired, those before it were evaluated."""

    def __init__(self, parts: PrefectParts) -> None:
        trigger = {"type": "event", "expect": ["marker"], "posture": "Reactive", "threshold": 1, "within": 0}
        made = {"name": "marker", "trigger": trigger, "actions": [{"type": "do-nothing"}]}
        self._parts = parts
        self._id = parts.ask("POST", "/automations/", made)["id"]
        self._passed = 0

    def pass_by(self) -> None:
        """Wait for everything before, and for the time between two waves to pass."""
        self._passed += 1
        marker = {"event": "marker", "resource": {"prefect.resource.id": "marker"}, "id": None}
        post(self._parts, [marker])
        wait_for(lambda: len(_fired(self._parts, self._id)) >= self._passed, seconds=30, what="the marker fires")
        seen = datetime.now(UTC)
        wait_for(lambda: datetime.now(UTC) - seen > _GAP, what="the time between two waves")


def post(parts: PrefectParts, events: Sequence[dict[str, Any]]) -> None:
    """Have the server take events."""
    now = datetime.now(UTC).isoformat()
    body = [{**event, "id": event["id"] or str(uuid4()), "occurred": event.get("occurred", now)} for event in events]
    answer = parts.answer("POST", "/events", body)
    assert answer.is_success, answer.text


def _post(parts: PrefectParts, number: int, *, before: datetime) -> None:
    now = datetime.now(UTC)
    events = [case.wave(number, base=before - _BEFORE, now=now) for case in CASES]
    post(parts, [event for event in events if event])


def _fired(parts: PrefectParts, automation: str) -> list[dict[str, Any]]:
    wanted = {"event": {"name": [_TRIGGERED]}, "resource": {"id": [f"prefect.automation.{automation}"]}}
    found: list[dict[str, Any]] = parts.ask("POST", "/events/filter", {"filter": wanted, "limit": 50})["events"]
    return found


def _total(parts: PrefectParts) -> int:
    found: int = parts.ask("POST", "/events/filter", {"limit": 1})["total"]
    return found


def _all_events(parts: PrefectParts) -> list[dict[str, Any]]:
    page = parts.ask("POST", "/events/filter", {"filter": {"order": "ASC"}, "limit": 50})
    found = list(page["events"])
    while page["next_page"]:
        page = parts.ask("GET", f"/events/filter/next?{page['next_page'].partition('?')[2]}")
        found += page["events"]
    return found


def _by_case(events: Sequence[dict[str, Any]], ids: dict[str, str]) -> dict[str, list[Fired]]:
    found: dict[str, list[Fired]] = {}
    for event in sorted(events, key=lambda one: one["occurred"]):
        name = ids.get(event["resource"]["prefect.resource.id"].removeprefix("prefect.automation."))
        if event["event"] == _TRIGGERED and name:
            triggering = event["payload"]["triggering_event"]
            labels = tuple(sorted(event["payload"]["triggering_labels"].items()))
            found.setdefault(name, []).append((triggering["id"] if triggering else None, labels))
    return found


def _simulated(answer: Answer) -> dict[str, list[Fired]]:
    return {
        case.name: [(firing.event, tuple(sorted(firing.labels.items()))) for firing in outcome.firings]
        for case, outcome in zip(CASES, answer.outcomes, strict=True)
    }
