"""Handshakes are answered as each sender's documentation says, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.sources import Source
from penstock.verification import bearer, github, slack
from penstock.webhook import handshakes
from penstock.webhook.problems import Refusal

SLACK = Source(name="slack", dataset="d", verify=slack("S"))
HUB = Source(name="hub", dataset="d", verify=github("S"))
EVENTS = Source(name="ce", dataset="d", verify=bearer("S"), cloudevents=True, origins=("eventemitter.example.com",))
META = [("hub.mode", "subscribe"), ("hub.challenge", "1158201444"), ("hub.verify_token", "meatyhamhock")]


def test_slack_is_told_its_challenge() -> None:
    """Slack's own example of `url_verification`."""
    body = {"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "3eZbrw1aBm2rZgRN", "type": "url_verification"}
    assert handshakes.in_body(SLACK, {}, body) == {"challenge": "3eZbrw1aBm2rZgRN"}


@pytest.mark.parametrize("challenge", [None, 7, "", "a b", "x" * 257, "<\n>"], ids=repr)
def test_a_challenge_that_is_none_is_not_said_after(challenge: Any) -> None:
    """Slack's is a short word."""
    assert handshakes.in_body(SLACK, {}, {"type": "url_verification", "challenge": challenge}) == {"challenge": ""}


def test_githubs_ping_is_no_delivery() -> None:
    """A ping is told by its header."""
    assert handshakes.in_body(HUB, {"x-github-event": "ping"}, {"zen": "Design for failure."}) == {"handshake": "ping"}


@pytest.mark.parametrize(
    ("source", "headers", "body"),
    [
        (HUB, {"x-github-event": "push"}, {"zen": "x"}),
        (HUB, {}, {"type": "url_verification", "challenge": "x"}),
        (SLACK, {"x-github-event": "ping"}, {"type": "event_callback"}),
        (SLACK, {}, ["url_verification"]),
        (EVENTS, {"x-github-event": "ping"}, {"type": "url_verification", "challenge": "x"}),
    ],
    ids=["push", "hub-like-slack", "slack-like-hub", "list", "other"],
)
def test_a_delivery_is_no_handshake(source: Source, headers: dict[str, str], body: Any) -> None:
    """Only the sender's own kind of handshake is one."""
    assert handshakes.in_body(source, headers, body) is None


def test_metas_challenge_is_said_after() -> None:
    """Meta's own example of a verification request."""
    assert handshakes.by_get(META, "meatyhamhock") == "1158201444"


@pytest.mark.parametrize(
    "query",
    [
        [],
        META[:2],
        [*META[:2], ("hub.verify_token", "meatyhamhocK")],
        [*META[:2], ("hub.verify_token", "")],
        [*META, ("hub.verify_token", "meatyhamhock")],
        [("hub.mode", "unsubscribe"), *META[1:]],
        [META[0], ("hub.challenge", "<script>alert(1) </script>"), META[2]],
        [META[0], ("hub.challenge", "x" * 257), META[2]],
        [*META[:2], ("hub.verify_token", "\udcff")],
    ],
    ids=["nothing", "no-token", "wrong", "empty", "twice", "mode", "html", "long", "surrogate"],
)
def test_a_get_without_the_token_is_refused(query: list[tuple[str, str]]) -> None:
    """Whatever is not exactly right is `unverified`."""
    with pytest.raises(Refusal, match="unverified"):
        handshakes.by_get(query, "meatyhamhock")


def test_a_cloudevents_sender_is_allowed() -> None:
    """The example of the CloudEvents webhook specification."""
    asked = {"webhook-request-origin": "eventemitter.example.com", "webhook-request-rate": "120"}
    assert handshakes.by_options(EVENTS, asked) == {
        "WebHook-Allowed-Origin": "eventemitter.example.com",
        "WebHook-Allowed-Rate": "*",
        "Allow": "POST, OPTIONS",
    }


@pytest.mark.parametrize(
    ("rate", "per_minute"), [("2/second", "120"), ("90/minute", "90"), ("600/hour", "10"), ("5/day", "1")]
)
def test_the_rate_is_told_per_minute(rate: str, per_minute: str) -> None:
    """As the specification wants it, one at least."""
    source = Source(name="ce", dataset="d", verify=bearer("S"), cloudevents=True, rate=rate)
    allowed = handshakes.by_options(source, {"webhook-request-origin": "a.example"})
    assert allowed is not None
    assert allowed["WebHook-Allowed-Rate"] == per_minute


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        (EVENTS, {}),
        (EVENTS, {"webhook-request-origin": "other.example"}),
        (EVENTS, {"webhook-request-origin": "a\r\nX: y"}),
        (HUB, {"webhook-request-origin": "eventemitter.example.com"}),
    ],
    ids=["nothing", "other", "header", "no-cloudevents"],
)
def test_others_are_not_allowed(source: Source, headers: dict[str, str]) -> None:
    """A sender that is not told may not send."""
    assert handshakes.by_options(source, headers) is None
