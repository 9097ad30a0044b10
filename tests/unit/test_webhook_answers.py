"""What a source may declare besides: dataset, limits, types, handshakes, CloudEvents, and what is kept of refusals."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from typing import Any

import pytest

from penstock.model import FurtherEvent
from penstock.sources import Emit, Source, dataset_by_path, dataset_by_template
from penstock.verification import bearer, github, slack, standard_webhooks
from penstock.webhook.verify import sign
from tests.edge import Edge, kind

SECRETS = {
    "HUB": "plain",
    "CE": "a-token-of-some-length",
    "SLACK": "slack",
    "SHOP": "whsec_" + "c2VjcmV0" * 4,
    "META": "meaty",
}
HUB = Source(
    name="hub",
    dataset=dataset_by_path('headers."x-github-event"', among={"push": "pushes", "issues": "issues"}, otherwise="rest"),
    verify=github("HUB"),
)
SHOP = Source(
    name="shop",
    dataset=dataset_by_template("{{ body.kind }}_{{ body.v }}", among=["order_1", "order_2"], otherwise="odd"),
    verify=standard_webhooks("SHOP"),
    content_types=("application/json",),
    max_bytes=1000,
    keep_rejected_days=3,
    emit=[
        Emit(name="shop.{{ body.kind }}", resource="shop.{{ body.id }}", payload={"v": "body.v"}, when="body.v > `1`")
    ],
)
CE = Source(name="ce", dataset="events", verify=bearer("CE"), cloudevents=True, max_bytes=3000)
SIGNED_CE = Source(name="signed_ce", dataset="events", verify=github("HUB"), cloudevents=True)
UNSIGNED_CE = Source(
    name="unsigned_ce", dataset="events", verify=github("HUB"), cloudevents=True, unsigned_attributes=True
)
TELLING = Source(
    name="telling", dataset="d", verify=github("HUB"), emit=[Emit(name="shop.order", resource="shop.{{ body.id }}")]
)
SLACK = Source(name="slack", dataset="slack", verify=slack("SLACK"))
META = Source(name="meta", dataset="meta", verify=github("HUB"), challenge="META")
RATED = Source(name="rated", dataset="r", verify=github("HUB"), rate="2/hour")
EACH = Source(name="each", dataset="r", verify=github("HUB"), rate_per_address="2/hour")
OLD = Source(name="old", dataset="r", verify=github("HUB"), retired=True)
JSON = {"content-type": "application/json"}
EVENT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "sold", "data": {"n": 1}}
AUTH = {"authorization": f"Bearer {SECRETS['CE']}"}


@pytest.fixture
def edge() -> Edge:
    return Edge([SIGNED_CE, UNSIGNED_CE, TELLING, HUB, SHOP, CE, SLACK, META, RATED, EACH, OLD], SECRETS)


def shop(edge: Edge, delivery: str, **body: Any) -> str:
    """The dataset that a delivery of the shop's went to."""
    found = edge.signed(delivery, json.dumps(body).encode(), JSON, source="shop")
    assert found.status_code == 202, found.text
    return edge.intake.deliveries[-1].dataset


@pytest.mark.parametrize(
    ("event", "dataset"), [("push", "pushes"), ("issues", "issues"), ("star", "rest"), (None, "rest")]
)
def test_a_header_chooses_the_dataset(edge: Edge, event: str | None, dataset: str) -> None:
    """Whatever is not foreseen goes where the source says."""
    edge.signed(headers={"x-github-event": event} if event else {}, source="hub")
    assert edge.intake.deliveries[-1].dataset == dataset


def test_the_body_chooses_the_dataset(edge: Edge) -> None:
    """By a template."""
    assert shop(edge, "a", kind="order", v=1) == "order_1"
    assert shop(edge, "b", kind="order", v=2, id=9) == "order_2"
    assert shop(edge, "c", kind="order", v=3, id=9) == "odd"
    assert shop(edge, "d", kind="{{ 7 * 7 }}", v=1) == "odd"


def test_a_body_that_chooses_must_be_json(edge: Edge) -> None:
    """And is kept, with the reason."""
    refused = edge.signed("a", b"{", JSON, source="shop")
    assert (refused.status_code, kind(refused)) == (400, "unparseable")
    assert [(one.source, one.kind, one.body) for one in edge.rejected] == [("shop", "unparseable", b"{")]


def test_a_delivery_brings_further_events(edge: Edge) -> None:
    """Those whose condition holds."""
    shop(edge, "a", kind="order", v=1, id=8)
    shop(edge, "b", kind="order", v=2, id=9)
    events = [delivery.events for delivery in edge.intake.deliveries]
    assert events == [(), (FurtherEvent(name="shop.order", resource="shop.9", payload={"v": 2}),)]


def test_another_content_type_is_415(edge: Edge) -> None:
    """Where the source names those it takes."""
    for given in ("text/plain", "", "application/jsonx", "json"):
        refused = edge.signed("a", b"{}", {"content-type": given}, source="shop")
        assert (refused.status_code, kind(refused)) == (415, "content-type")
    assert (
        edge.signed("a", b"{}", {"content-type": "Application/JSON; charset=utf-8"}, source="shop").status_code == 202
    )


def test_a_gzipped_body_is_signed_as_it_came_and_kept_inflated(edge: Edge) -> None:
    """The bound holds for what it holds."""
    body = gzip.compress(b'{"kind": "order", "v": 1}')
    assert edge.signed("a", body, {**JSON, "content-encoding": "gzip"}, source="shop").status_code == 202
    assert edge.intake.deliveries[-1].body == b'{"kind": "order", "v": 1}'
    bomb = gzip.compress(bytes(100_000))
    assert len(bomb) < 1000
    refused = edge.signed("b", bomb, {**JSON, "content-encoding": "gzip"}, source="shop")
    assert (refused.status_code, kind(refused)) == (413, "too-large")
    refused = edge.signed("c", b"{}", {**JSON, "content-encoding": "gzip"}, source="shop")
    assert (refused.status_code, kind(refused)) == (400, "unparseable")
    refused = edge.signed("c", b"{}", {**JSON, "content-encoding": "br"}, source="shop")
    assert (refused.status_code, kind(refused)) == (415, "content-encoding")


def test_a_gzip_that_is_not_verified_is_not_inflated(edge: Edge) -> None:
    """Whoever may not send cannot make it work either."""
    refused = edge.hook("shop", gzip.compress(bytes(100_000)), {**JSON, "content-encoding": "gzip"})
    assert (refused.status_code, kind(refused)) == (401, "unverified")


def test_a_retired_source_says_so(edge: Edge) -> None:
    """To whoever asks, signed or not."""
    assert edge.signed(source="old").status_code == 410
    assert kind(edge.hook("old")) == "retired"
    assert edge.send("GET", "/hooks/old").status_code == 410


def test_a_source_has_its_rate(edge: Edge) -> None:
    """Only what is verified counts, and the answer says when to come back."""
    for _ in range(5):
        assert edge.hook("rated").status_code == 401
    answers = [edge.signed(f"d-{number}", source="rated") for number in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
    assert kind(answers[-1]) == "too-many"
    assert len(edge.intake.deliveries) == 2


def test_an_address_has_its_rate(edge: Edge) -> None:
    """Before anything of a request is believed."""
    assert [edge.hook("each").status_code for _ in range(3)] == [401, 401, 429]
    assert edge.signed(source="each").status_code == 429


def test_slacks_challenge(edge: Edge) -> None:
    """It is answered when it is signed, and delivers nothing."""
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRN"}).encode()
    assert edge.hook("slack", body).status_code == 401
    answer = edge.signed("x", body, source="slack")
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aBm2rZgRN"})
    assert not edge.intake.deliveries


def test_githubs_ping(edge: Edge) -> None:
    """It is answered when it is signed, and delivers nothing."""
    assert edge.hook("hub", b"{}", {"x-github-event": "ping"}).status_code == 401
    answer = edge.signed("x", b'{"zen": "z"}', {"x-github-event": "ping"}, source="hub")
    assert (answer.status_code, answer.json()) == (200, {"handshake": "ping"})
    assert not edge.intake.deliveries


def test_metas_challenge(edge: Edge) -> None:
    """A GET with the token is answered with the challenge, as text."""
    query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    answer = edge.get(f"/hooks/meta?{query}meaty")
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    assert edge.get(f"/hooks/meta?{query}meat").status_code == 401
    edge.secrets["META"] = ""
    edge.now = edge.now.replace(hour=13)
    assert edge.get(f"/hooks/meta?{query}").status_code == 503


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "DELETE", "PATCH", "HEAD"])
def test_other_methods_are_405(edge: Edge, method: str) -> None:
    """And say what is allowed."""
    answer = edge.send(method, "/hooks/hub")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


def test_a_cloudevents_sender_asks_first(edge: Edge) -> None:
    """And is told that it may."""
    answer = edge.send("OPTIONS", "/hooks/ce", headers={"WebHook-Request-Origin": "a.example"})
    assert (answer.status_code, answer.headers["webhook-allowed-origin"]) == (200, "a.example")


def test_cloudevents_in_each_mode(edge: Edge) -> None:
    """One event is one delivery, however it comes."""
    structured = edge.hook(
        "ce", json.dumps(EVENT).encode(), {**AUTH, "content-type": "application/cloudevents+json; charset=utf-8"}
    )
    assert structured.status_code == 202
    assert structured.json()["duplicate"] is False
    ce = {f"ce-{name}": str(value) for name, value in EVENT.items() if name != "data"}
    binary = edge.hook("ce", b'{"n": 1}', {**AUTH, **ce, **JSON})
    assert binary.json() == {"delivery": structured.json()["delivery"], "duplicate": True}
    both = [EVENT, {**EVENT, "id": "8"}]
    batch = edge.hook("ce", json.dumps(both).encode(), {**AUTH, "content-type": "application/cloudevents-batch+json"})
    assert batch.status_code == 202
    assert [one["duplicate"] for one in batch.json()["deliveries"]] == [True, False]
    assert [json.loads(one.body)["id"] for one in edge.intake.deliveries] == ["7", "8"]
    assert {one.content_type for one in edge.intake.deliveries} == {"application/cloudevents+json"}


def test_a_signed_cloudevent_is_structured(edge: Edge) -> None:
    """In binary mode whoever captured one could change what its headers say, and send it as another."""
    ce = {f"ce-{name}": str(value) for name, value in EVENT.items() if name != "data"}
    refused = edge.signed("a", b"{}", {**ce, **JSON}, source="signed_ce")
    assert (refused.status_code, kind(refused)) == (400, "bad-cloudevent")
    structured = {"content-type": "application/cloudevents+json"}
    assert edge.signed("a", json.dumps(EVENT).encode(), structured, source="signed_ce").status_code == 202
    assert edge.signed("a", b"{}", {**ce, **JSON}, source="unsigned_ce").status_code == 202


def test_an_event_that_cannot_be_made_costs_no_delivery(edge: Edge) -> None:
    """Only where the dataset is chosen by the body must that be JSON."""
    assert edge.signed("a", b"id,name\n1,x\n", source="telling").status_code == 202
    assert not edge.intake.deliveries[-1].events
    assert edge.signed("b", b'{"id": 7}', source="telling").status_code == 202
    assert [event.resource for event in edge.intake.deliveries[-1].events] == ["shop.7"]


def test_why_a_request_was_not_verified_is_kept_and_not_told(edge: Edge) -> None:
    """Its sender hears the same each time."""
    good = sign(SHOP.verify, SECRETS["SHOP"], "d", b"{}", edge.now)
    late = sign(SHOP.verify, SECRETS["SHOP"], "d", b"{}", edge.now - timedelta(hours=1))
    answers = [edge.hook("shop", b"{}", {**JSON, **headers}) for headers in ({}, late, {**good, "webhook-id": "e"})]
    assert len({answer.text for answer in answers}) == 1
    assert [one.detail for one in edge.rejected] == [
        "the header webhook-id is missing",
        "its time is -3600 s off, and may be 300 s",
        "no signature or token of it fits",
    ]


def test_no_cloudevent_is_400_and_nothing_of_its_batch_is_taken(edge: Edge) -> None:
    """All or nothing."""
    body = json.dumps([EVENT, {**EVENT, "id": ""}]).encode()
    refused = edge.hook("ce", body, {**AUTH, "content-type": "application/cloudevents-batch+json"})
    assert (refused.status_code, kind(refused)) == (400, "bad-cloudevent")
    assert not edge.intake.deliveries


def test_what_is_kept_of_a_refusal_has_no_secret(edge: Edge) -> None:
    """A signature that was almost right is a signature."""
    headers = {**sign(SHOP.verify, SECRETS["SHOP"], "d", b"other", edge.now), **JSON, "cookie": "c=1"}
    assert edge.hook("shop", b"{}", headers).status_code == 401
    (kept,) = edge.rejected
    assert (kept.kind, kept.body) == ("unverified", b"{}")
    assert headers["webhook-signature"] not in repr(kept)
    assert "c=1" not in repr(kept)
    assert edge.signed(source="hub", headers={"x-hub-signature-256": "no"}).status_code == 401
    assert len(edge.rejected) == 1, "a source that does not ask for it keeps nothing"
