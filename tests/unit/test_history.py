"""What automations did lately: counting, reading pages, and which object a failed action concerned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from penstock import events
from penstock.automations.history import Past, owned_by, past_of
from penstock.cli.failed_actions import concerns, failed_actions, waited
from penstock.errors import PrefectFailed, PrefectUnavailable
from penstock.ledger.facts import Story
from penstock.model import Fact, State, Via
from penstock.outbox.prefect_history import FAILED, Count, FailedAction, PrefectHistory
from penstock.ownership import owner_tag
from penstock.settings import Settings

PROJECT = "shop"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(minutes: float) -> datetime:
    return START + minutes * MINUTE


def failure(automation: str, minutes: float, reason: str = "no") -> FailedAction:
    return FailedAction(
        at=at(minutes), automation_id=automation, automation=automation, action="run-deployment", reason=reason
    )


def automation(name: str, *tags: str, enabled: bool = True) -> dict[str, Any]:
    return {"id": f"id-{name}", "name": name, "enabled": enabled, "tags": list(tags)}


def test_a_line_for_each_automation() -> None:
    """Counts and the last reason stand with their automation, in the order of the names."""
    lines = past_of(
        [automation("b", owner_tag(PROJECT)), automation("a", "x", "penstock:other", enabled=False), automation("c")],
        fired={"id-b": Count(count=9, last=at(9))},
        acted={"id-b": Count(count=5, last=at(8))},
        failed={"id-b": Count(count=4, last=at(9)), "id-gone": Count(count=1, last=at(1))},
        failures=[failure("id-b", 9, "newest"), failure("id-b", 3, "older"), failure("id-gone", 1)],
    )
    nothing: dict[str, Any] = {"last_fired": None, "acted": 0, "failed": 0, "last_failed": None, "reason": None}
    assert lines == [
        Past(id="id-a", name="a", enabled=False, owner="other", **nothing),
        Past(
            id="id-b",
            name="b",
            enabled=True,
            owner=PROJECT,
            last_fired=at(9),
            acted=5,
            failed=4,
            last_failed=at(9),
            reason="newest",
        ),
        Past(id="id-c", name="c", enabled=True, owner=None, **nothing),
    ]
    assert [line.name for line in owned_by(lines, PROJECT)] == ["b"]


# Reading

Handler = Callable[[httpx.Request], httpx.Response]


def server(handler: Handler, **more: Any) -> PrefectHistory:
    return PrefectHistory("http://prefect.test/api", "", transport=httpx.MockTransport(handler), **more)


def failed_event(number: int, cause: str | None = None) -> dict[str, Any]:
    related = [{"prefect.resource.id": "prefect.event.other", "prefect.resource.role": "automation-triggered-event"}]
    if cause:
        related.append({"prefect.resource.id": f"prefect.event.{cause}", "prefect.resource.role": "triggering-event"})
    return {
        "id": f"f{number}",
        "occurred": at(number).isoformat(),
        "event": FAILED,
        "resource": {"prefect.resource.id": "prefect.automation.a1", "prefect.resource.name": "one"},
        "related": related,
        "payload": {"action_type": "run-deployment", "reason": f"reason {number}"},
    }


def test_all_pages_are_read() -> None:
    """Pages follow one another by their token, at the address that is known to work."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url}")
        if request.method == "POST":
            assert json.loads(request.content)["limit"] == 50
            link = "http://inside:4200/api/events/filter/next?page-token=b%3D%3D"
            return httpx.Response(200, json={"events": [failed_event(1)], "total": 2, "next_page": link})
        return httpx.Response(200, json={"events": [failed_event(2)], "total": 2, "next_page": None})

    found = server(handler).failures(since=START, until=at(60))
    assert [one.reason for one in found.actions] == ["reason 1", "reason 2"]
    assert (found.complete, found.actions[0].cause) == (True, None)
    assert asked == [
        "POST http://prefect.test/api/events/filter",
        "GET http://prefect.test/api/events/filter/next?page-token=b%3D%3D",
    ]


def test_reading_ends_at_a_limit_and_says_so() -> None:
    """Of more failures than asked for, the rest is left, and it is said that there are more."""

    def handler(request: httpx.Request) -> httpx.Response:
        link = "http://prefect.test/api/events/filter/next?page-token=x"
        return httpx.Response(200, json={"events": [failed_event(1)] * 50, "total": 999, "next_page": link})

    found = server(handler).last_failures(since=START, until=at(60), most=120)
    assert (len(found.actions), found.complete) == (120, False)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        pytest.param({"id": "c1", "event": "made.up", "payload": {}}, "c1", id="event"),
        pytest.param(
            {"id": "c1", "event": "prefect.automation.triggered", "payload": {"triggering_event": {"id": "c2"}}},
            "c2",
            id="change of state",
        ),
        pytest.param(
            {"id": "c1", "event": "prefect.automation.triggered", "payload": {"triggering_event": None}},
            "c1",
            id="change of state without an event",
        ),
    ],
)
def test_the_cause_of_a_failure(cause: dict[str, Any], expected: str) -> None:
    """The event that triggered the action is read by its id; behind a trigger's change of state, the one in it."""

    def handler(request: httpx.Request) -> httpx.Response:
        wanted = json.loads(request.content)["filter"]
        found = [cause] if wanted.get("id") == {"id": ["c1"]} else [failed_event(1, "c1")]
        return httpx.Response(200, json={"events": found, "total": 1, "next_page": None})

    (one,) = server(handler).failures(since=START, until=at(60)).actions
    assert one.cause is not None
    assert one.cause["id"] == expected


def test_all_questions_share_the_time() -> None:
    """When the time is up, no further question is asked."""
    moments = iter([0.0, 0.4, 1.2])
    asked: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json={"events": [failed_event(1, "c1")], "total": 1, "next_page": None})

    with pytest.raises(PrefectUnavailable, match="did not answer within 1 s"):
        server(handler, seconds=1.0, monotonic=lambda: next(moments)).failures(since=START, until=at(60))
    assert asked == [pytest.approx(0.6)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="empty"),
        pytest.param([], id="list"),
        pytest.param({"events": [{}], "next_page": None}, id="event without fields"),
        pytest.param({"events": [], "next_page": "http://x/next"}, id="no token"),
    ],
)
def test_an_answer_of_another_shape(answer: Any) -> None:
    """A server that answers something else has failed; it is no error of its own kind."""
    with pytest.raises(PrefectFailed):
        server(lambda request: httpx.Response(200, json=answer)).failures(since=START, until=at(60))


def test_counts_of_another_shape() -> None:
    """As with events."""
    with pytest.raises(PrefectFailed):
        server(lambda request: httpx.Response(200, json=[{"value": 1}])).counts(FAILED, since=START, until=at(60))


# Which objects a failed action concerned


def story(**changes: Any) -> Story:
    made = Story(
        id=1,
        name="landing/sales/a.csv@2",
        key="sales/a.csv",
        dataset="sales",
        state=State.PENDING,
        reason=None,
        via=Via.FOLDER,
        size=1,
        source=None,
        delivery=None,
        arrived_at=at(10),
        changed_at=at(10),
        rows=None,
        rejected=None,
        run=None,
        attempts=0,
        hiccups=0,
        facts=(),
    )
    return replace(made, **changes)


def fact(minutes: float, what: str, run: str | None = None) -> Fact:
    return Fact(at=at(minutes), what=what, detail="", run=run)


LOADED = story(state=State.LOADED, changed_at=at(20), run="r1", facts=(fact(20, "loaded", "r1"),))
REPLAYED = replace(LOADED, facts=(fact(20, "loaded", "r1"), fact(40, "replayed"), fact(50, "loaded", "r2")), run="r2")


@pytest.mark.parametrize(
    ("told", "minutes", "expected"),
    [
        pytest.param(story(), 9, False, id="before it arrived"),
        pytest.param(story(), 10, True, id="as it arrived"),
        pytest.param(story(), 99, True, id="still pending"),
        pytest.param(LOADED, 15, True, id="before it was loaded"),
        pytest.param(LOADED, 25, False, id="after it was loaded"),
        pytest.param(replace(LOADED, facts=()), 15, True, id="before, without facts"),
        pytest.param(replace(LOADED, facts=()), 25, False, id="after, without facts"),
        pytest.param(REPLAYED, 30, False, id="before the replay"),
        pytest.param(REPLAYED, 45, True, id="while it was replayed"),
        pytest.param(REPLAYED, 55, False, id="after the replay"),
        pytest.param(story(facts=(fact(20, "postponed"),)), 30, True, id="postponed"),
    ],
)
def test_when_an_object_waited(told: Story, minutes: float, expected: bool) -> None:
    """From its arrival, or a replay, until a run settled it."""
    assert waited(told, at(minutes)) is expected


def event(name: str, resource: dict[str, str], minutes: float = 15, **payload: Any) -> dict[str, Any]:
    return {"event": name, "resource": resource, "payload": payload, "occurred": at(minutes).isoformat()}


SALES = events.dataset_resource(PROJECT, "sales")
OBJECT = events.object_resource(PROJECT, "landing", "sales/a.csv")
HOOK = events.source_resource(PROJECT, "till")
DELIVERY = story(source="till", delivery="d1")


@pytest.mark.parametrize(
    ("cause", "told", "expected"),
    [
        pytest.param(None, story(), False, id="no cause"),
        pytest.param(event(events.DATASET_PENDING, SALES), story(), True, id="its dataset's wake-up"),
        pytest.param(event(events.DATASET_PENDING, SALES, 25), LOADED, False, id="a later wake-up"),
        pytest.param(
            event(events.DATASET_PENDING, events.dataset_resource(PROJECT, "weather")),
            story(),
            False,
            id="another dataset's",
        ),
        pytest.param(
            event(events.DATASET_PENDING, events.dataset_resource("other", "sales")),
            story(),
            False,
            id="another project's",
        ),
        pytest.param(event(events.DATASET_LOADED, SALES, 20, run="r1"), LOADED, True, id="its load"),
        pytest.param(event(events.DATASET_LOADED, SALES, 15, run="r0"), LOADED, False, id="another load"),
        pytest.param(event(events.DATASET_LOADED, SALES, 15), story(), False, id="a load of no run"),
        pytest.param(event(events.DATASET_LOADED, SALES, 20, run="r1"), REPLAYED, True, id="its load before a replay"),
        pytest.param(event(events.OBJECT_ARRIVED, OBJECT, 10, generation=2), story(), True, id="its arrival"),
        pytest.param(event(events.OBJECT_ARRIVED, OBJECT, 5, generation=1), story(), False, id="another generation's"),
        pytest.param(
            event(events.OBJECT_QUARANTINED, OBJECT, object="landing/sales/a.csv@2"), story(), True, id="its quarantine"
        ),
        pytest.param(
            event(events.OBJECT_QUARANTINED, OBJECT, object="landing/sales/a.csv@1"),
            story(),
            False,
            id="another's quarantine",
        ),
        pytest.param(event(events.DELIVERY_ACCEPTED, HOOK, 9, delivery="d1"), DELIVERY, True, id="its delivery"),
        pytest.param(event(events.DELIVERY_ACCEPTED, HOOK, 9, delivery="d2"), DELIVERY, False, id="another delivery"),
        pytest.param(event("made.up", {"prefect.resource.id": "x"}), story(), False, id="something else"),
    ],
)
def test_which_object_it_concerned(cause: dict[str, Any] | None, told: Story, expected: bool) -> None:
    """What happened to the object itself, to its delivery, its load, or its dataset while it waited."""
    assert concerns(cause, told, PROJECT) is expected


def test_without_a_server_nothing_is_asked() -> None:
    """A project without a Prefect server is no reason for a note."""
    found = failed_actions(Settings(project=PROJECT), [story()], START)
    assert (found.asked, found.note, found.of) == (False, None, {})
