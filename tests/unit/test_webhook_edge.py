"""The edge over ASGI: every answer, and that the document tells the truth about it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.errors import (
    DeclarationError,
    LedgerUnavailable,
    NotMigrated,
    ObjectMissing,
    Refused,
    SettingsError,
    StoreUnavailable,
    Terminal,
)
from penstock.model import Via
from penstock.sources import Source
from penstock.testing.intake import MemoryIntake
from penstock.verification import github, standard_webhooks, unverified
from penstock.webhook import hooks
from penstock.webhook.app import Limits, create_app
from penstock.webhook.verify import sign
from tests.edge import BODY, TOKEN, Edge, kind

SECRET = "whsec_" + "c2VjcmV0" * 4

SHOP = Source(
    name="shop", dataset="orders", verify=standard_webhooks("SHOP_SECRET"), headers=("X-Topic",), max_bytes=100
)
GITHUB = Source(name="github", dataset="events", verify=github("GITHUB_SECRET"), headers=("x-github-event",))
OPEN = Source(name="open", dataset="open", verify=unverified(because="a test"), max_bytes=100)
UNSET = Source(name="unset", dataset="orders", verify=standard_webhooks("SHOP_SECRET", "UNSET_SECRET"))
STATUSES = (200, 202, 400, 401, 403, 404, 408, 410, 413, 415, 429, 500, 503)
WRONG = Source(name="wrong", dataset="orders", verify=standard_webhooks("WRONG_SECRET"))


def make(**settings: Any) -> Edge:
    """An edge for these sources."""
    secrets = {"SHOP_SECRET": SECRET, "GITHUB_SECRET": "plain", "WRONG_SECRET": "whsec_%"}
    return Edge([SHOP, GITHUB, OPEN, UNSET, WRONG], secrets, **settings)


@pytest.fixture
def edge() -> Edge:
    return make()


def test_a_signed_request_is_accepted_once(edge: Edge) -> None:
    """The first is 202 and durable with its allowed headers; the retry is 202 and a duplicate."""
    extra = {"x-topic": "paid", "x-other": "no", "content-type": "application/json"}
    first = edge.signed(headers=extra)
    assert (first.status_code, first.json()) == (202, {"delivery": "d-1", "duplicate": False})
    again = edge.signed()
    assert (again.status_code, again.json()) == (202, {"delivery": "d-1", "duplicate": True})
    [kept] = edge.intake.deliveries
    assert (kept.body, kept.headers, kept.content_type) == (BODY, {"x-topic": "paid"}, "application/json")
    assert (kept.source, kept.dataset, kept.received_at) == ("shop", "orders", edge.now)


def test_an_open_source_takes_equal_bodies_once(edge: Edge) -> None:
    """Without an id two equal bodies are one delivery."""
    assert edge.hook("open").json()["duplicate"] is False
    assert edge.hook("open").json()["duplicate"] is True


def test_an_unverified_request_is_refused(edge: Edge) -> None:
    """No signature, a signature of another body, and a doubled header are all 401, and nothing is accepted."""
    good = sign(SHOP.verify, SECRET, "d-1", BODY, edge.now)
    assert kind(edge.hook("shop")) == "unverified"
    refused = edge.hook("shop", b"{}", good)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Signature")
    transport_headers = [*good.items(), ("webhook-id", "d-2")]
    assert edge.send("POST", "/hooks/shop", content=BODY, headers=transport_headers).status_code == 401
    assert edge.intake.accept_calls == []


def test_an_unknown_source_is_404_and_names_nothing(edge: Edge) -> None:
    """The answer holds neither the name that was asked for nor those that there are."""
    found = edge.hook("nobody")
    assert (found.status_code, kind(found)) == (404, "unknown-source")
    assert not any(name in found.text for name in ("nobody", "shop", "github"))


@pytest.mark.parametrize(
    ("source", "secret", "variable"), [("shop", "", "SHOP_SECRET"), ("wrong", "whsec_%", "WRONG_SECRET")]
)
def test_a_source_without_a_usable_secret_accepts_nothing(
    edge: Edge, source: str, secret: str, variable: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused with 503; the log names the variable and never a value, the answer neither."""
    edge.secrets["SHOP_SECRET"] = "" if source == "shop" else SECRET
    for _ in range(2):
        found = edge.hook(source, BODY, sign(SHOP.verify, SECRET, "d-1", BODY, edge.now))
        assert (found.status_code, kind(found)) == (503, "secret-unset")
        assert variable not in found.text
        edge.now += timedelta(seconds=2)
    assert edge.intake.accept_calls == []
    assert caplog.text.count(variable) == 1
    assert "whsec" not in caplog.text


def test_one_secret_of_several_may_be_missing(edge: Edge) -> None:
    """It was withdrawn, or is yet to come; the others verify."""
    headers = sign(SHOP.verify, SECRET, "d-1", BODY, edge.now)
    assert edge.hook("unset", BODY, headers).status_code == 202
    edge.secrets["SHOP_SECRET"] = ""
    edge.now += timedelta(seconds=2)
    assert edge.hook("unset", BODY, headers).status_code == 503


def test_a_secret_that_is_set_later_is_used(edge: Edge) -> None:
    """Once the variable is set the source works without a restart."""
    edge.secrets["SHOP_SECRET"] = ""
    headers = sign(SHOP.verify, SECRET, "d-1", BODY, edge.now)
    assert edge.hook("unset", BODY, headers).status_code == 503
    edge.secrets["UNSET_SECRET"] = SECRET
    edge.now += timedelta(seconds=2)
    assert edge.hook("unset", BODY, headers).status_code == 202


@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"", {}, (400, "empty-body")),
        (BODY, {"content-length": "x"}, (400, "bad-content-length")),
        (BODY, {"content-length": "-1"}, (400, "bad-content-length")),
        (BODY, {"content-length": "٣".encode()}, (400, "bad-content-length")),
        (BODY, {"content-length": "101"}, (413, "too-large")),
        (b"x" * 101, {}, (413, "too-large")),
        (BODY, {"content-encoding": "br"}, (415, "content-encoding")),
        (BODY, {"webhook-id": "with space"}, (401, "unverified")),
    ],
)
def test_bad_requests_are_refused(edge: Edge, content: bytes, headers: Any, expected: tuple[int, str]) -> None:
    """Each thing that is wrong with a request has its own problem."""
    found = edge.hook("open", content, headers)
    assert (found.status_code, kind(found)) == expected
    assert edge.intake.accept_calls == []


def test_a_body_of_exactly_the_limit_is_taken(edge: Edge) -> None:
    """The limit itself is allowed, in chunks too."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"0123456789"

    assert edge.hook("open", chunks()).status_code == 202


def test_the_limit_holds_before_the_end_of_the_body(edge: Edge) -> None:
    """A body without a length is refused when it passes the limit; only a bounded rest is thrown away."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1_000_000

    assert edge.hook("open", endless()).status_code == 413
    assert sent < 20


def test_a_slow_body_is_cut_off() -> None:
    """A body that does not come in time is 408."""
    edge = make(limits=Limits(read_seconds=0.05))

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    assert kind(edge.hook("open", stuck())) == "too-slow"


@pytest.mark.parametrize("failure", [StoreUnavailable("s3 at 10.0.0.7"), LedgerUnavailable("postgres://u:pw@h")])
def test_an_outage_asks_to_come_back_and_tells_no_address(edge: Edge, failure: Exception) -> None:
    """What cannot be made durable is 503 with Retry-After, and is accepted by the retry."""
    edge.intake.failure = failure
    found = edge.signed()
    assert (found.status_code, kind(found)) == (503, "unavailable")
    assert int(found.headers["retry-after"]) > 0
    assert str(failure) not in found.text
    edge.intake.failure = None
    assert edge.signed().json() == {"delivery": "d-1", "duplicate": False}


def test_a_crash_is_500_and_leaks_nothing(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody foresaw is a problem without its message."""

    def crash(*_: object, **__: object) -> str:
        raise RuntimeError("very secret")

    monkeypatch.setattr(hooks, "identify", crash)
    found = edge.signed()
    assert found.status_code == 500
    assert "secret" not in found.text


FAILURES = [
    SettingsError("very secret keys"),
    ObjectMissing("very secret bucket"),
    Refused("very secret quota"),
    NotMigrated("very secret"),
    RuntimeError("very secret"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_whatever_cannot_be_made_durable_asks_to_come_back(edge: Edge, failure: Exception) -> None:
    """Nobody knows yet what has to be mended, and the sender keeps the delivery until it is."""
    edge.intake.failure = failure
    found = edge.signed()
    assert (found.status_code, kind(found)) == (503, "unavailable")
    assert "retry-after" in found.headers
    assert "secret" not in found.text
    edge.intake.failure = None
    assert edge.signed().status_code == 202


@pytest.mark.parametrize("limits", [Limits(max_waiting=0), Limits(memory_bytes=16, free_bytes=0)])
def test_a_full_edge_is_busy(limits: Limits) -> None:
    """A full queue and full memory are 503 with Retry-After, never accepted; memory is given back."""
    edge = make(limits=limits)
    for _ in range(2):
        found = edge.signed()
        assert (found.status_code, kind(found)) == (503, "busy")
        assert "retry-after" in found.headers
    if limits.memory_bytes == 16:
        assert edge.hook("open", b"1234").status_code == 202
        assert edge.hook("open", b"1234").status_code == 202


def notification(*keys: tuple[str, str]) -> bytes:
    records = [
        {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
        for bucket, key in keys
    ]
    return json.dumps({"Records": [*records, {}, {"eventName": "s3:ObjectRemoved:Delete"}]}).encode()


def test_notifications_become_hints(edge: Edge) -> None:
    """Creations in our buckets go to the intake; everything else is counted and answered 200."""
    found = edge.notify(
        notification(("landing", "a+b"), ("landing", "c"), ("foreign", "d"), ("landing", "_penstock/deliveries/x"))
    )
    assert found.status_code == 200
    assert found.json() == {"seen": 2, "removed": 0, "ignored": 2, "skipped": 0, "unusable": 2, "failed": 0}
    assert edge.intake.seen_calls == [("landing", ["a b", "c"], Via.NOTIFICATION)]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_an_unusable_notification_is_answered_200(edge: Edge, body: bytes) -> None:
    """A refusal would be sent again for ever, so rubbish from an authenticated sender is only counted."""
    found = edge.notify(body)
    assert (found.status_code, found.json()["unusable"]) == (200, 1)


def test_a_hint_that_fails_for_good_does_not_hold_the_others(edge: Edge) -> None:
    """One key the intake refuses is counted as failed; its neighbours are seen."""

    def refuse(keys: Any) -> None:
        if "bad" in keys:
            raise Terminal("no")

    edge.intake.refuse_keys = refuse
    found = edge.notify(notification(("landing", "a"), ("landing", "bad"), ("landing", "b")))
    assert (found.json()["seen"], found.json()["failed"]) == (2, 1)
    edge.intake.failure = StoreUnavailable()
    again = edge.notify(notification(("landing", "a")))
    assert (again.status_code, kind(again)) == (503, "unavailable")
    assert "retry-after" in again.headers


def test_a_hint_that_fails_for_now_does_not_hold_the_others(edge: Edge) -> None:
    """One key that the store cannot be asked for now is left to the sweep: the notification is not sent again."""
    edge.intake.skip_keys["b.csv"] = StoreUnavailable("not now")
    answer = edge.notify(notification(("landing", "a.csv"), ("landing", "b.csv"), ("landing", "c.csv")))
    assert (answer.status_code, answer.json()["seen"], answer.json()["failed"]) == (200, 2, 1)
    assert len(edge.intake.seen_calls) == 1


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{TOKEN}".encode()).decode()


def test_a_notification_may_bring_the_token_as_a_password(edge: Edge) -> None:
    """Amazon SNS has no other way than its endpoint's URL."""
    assert edge.notify(notification(("landing", "a.csv")), token=basic("penstock")).status_code == 200
    assert len(edge.intake.seen_calls) == 1


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ü", basic("other")])
def test_notifications_need_the_token(edge: Edge, token: str) -> None:
    """Without the right bearer token a notification is 401 and gives no hint."""
    found = edge.send(
        "POST",
        "/notifications/s3",
        content=notification(("landing", "a")),
        headers={"authorization": token.encode()},
    )
    assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
    assert edge.intake.seen_calls == []


@pytest.mark.parametrize("token", ["", "Bearer ", "Bearer x"])
def test_notifications_without_a_configured_token_are_off(token: str) -> None:
    """An empty configured token lets nobody in, an empty one least of all."""
    edge = make(notify_token="")
    assert kind(edge.notify(notification(("landing", "a")), token)) == "notifications-off"


def test_health_readiness_and_which_part_fails(edge: Edge) -> None:
    """Health needs nothing; readiness names the part that does not answer."""
    assert edge.get("/readyz").json() == {"status": "ready"}
    for failure, part in ((StoreUnavailable("10.0.0.7"), "object store"), (LedgerUnavailable("x"), "ledger")):
        edge.intake.failure = failure
        found = edge.get("/readyz")
        assert (found.status_code, kind(found)) == (503, "not-ready")
        assert part in found.json()["detail"]
        assert "10.0.0.7" not in found.text
    assert edge.get("/healthz").json() == {"status": "up"}


def test_metrics_count_by_declared_names_only(edge: Edge) -> None:
    """Accepted, duplicate and refused are counted; a name from outside is never a label."""
    edge.signed()
    edge.signed()
    edge.hook("shop")
    edge.hook("evil-name")
    edge.notify(notification(("landing", "a"), ("foreign", "b")))
    text = edge.get("/metrics").text
    assert 'penstock_webhook_requests_total{outcome="accepted",source="shop"} 1.0' in text
    assert 'penstock_webhook_requests_total{outcome="duplicate",source="shop"} 1.0' in text
    assert 'penstock_webhook_requests_total{outcome="unverified",source="shop"} 1.0' in text
    assert 'penstock_webhook_requests_total{outcome="unknown-source",source="(unknown)"} 1.0' in text
    assert 'penstock_notification_hints_total{outcome="ignored"} 1.0' in text
    assert 'penstock_webhook_seconds_count{source="shop"} 3.0' in text
    assert "evil-name" not in text


def test_the_frameworks_own_errors_are_problems(edge: Edge) -> None:
    """404, 405 and 422 of routes, own ones included, have the same form."""

    @edge.app.get("/own/{number}")
    async def own(number: int) -> int:
        return number

    assert edge.get("/nowhere").status_code == 404
    wrong = edge.get("/hooks/shop")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    invalid = edge.get("/own/x")
    assert invalid.status_code == 422
    assert "path.number" in invalid.json()["detail"]


def test_the_document_describes_security_and_every_refusal(edge: Edge) -> None:
    """The document names the signature headers, the bearer token and each status, and resolves its references."""
    operation = edge.document["paths"]["/hooks/{source}"]["post"]
    assert set(operation["responses"]) == {str(status) for status in STATUSES}
    schemes = edge.document["components"]["securitySchemes"]
    assert {"webhook-signature", "x-hub-signature-256", "notify"} <= set(schemes)
    assert {} in operation["security"]
    assert {"x-github-delivery": [], "x-hub-signature-256": []} in operation["security"]
    named = {name for alternative in operation["security"] for name in alternative}
    assert named <= set(schemes)
    assert set(edge.document["components"]["schemas"]) >= {"Problem", "Accepted", "Noted"}
    assert edge.document["info"]["version"] == "1.2.3"


def test_two_sources_of_one_name_are_an_error() -> None:
    """A name that is declared twice does not silently win over the other."""
    with pytest.raises(DeclarationError):
        create_app(
            sources=[OPEN, OPEN],
            intake=MemoryIntake(),
            resolve_secret=lambda name: "",
            notify_token="",
            buckets=[],
            clock=lambda: datetime.now(UTC),
            version="0",
        )
