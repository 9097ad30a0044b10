"""The senders' own libraries as oracles: what they sign is taken here, and what is signed here they take."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.signature import Clock, SignatureVerifier
from standardwebhooks import Webhook
from stripe import SignatureVerificationError, WebhookSignature
from svix.webhooks import Webhook as SvixWebhook

from penstock import verification as declared
from penstock.errors import Unverified
from penstock.verification import Verification
from penstock.webhook.verify import sign, verify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# What these libraries sign is text.
bodies = st.text(st.characters(codec="utf-8"), max_size=200)


class At(Clock):
    """The clock of the example, in Slack's library."""

    def now(self) -> float:
        """The time of the example."""
        return NOW.timestamp()


def taken(how: Verification, secret: str, headers: Mapping[str, str], body: str, now: datetime = NOW) -> str:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return verify(how, [secret], raw, body.encode(), now)


@given(body=bodies, delivery=st.from_regex(r"msg_[A-Za-z0-9]{1,40}", fullmatch=True))
def test_standard_webhooks_own_library_agrees(body: str, delivery: str) -> None:
    """`standardwebhooks` signs what we take and takes what we sign."""
    now, oracle, how = datetime.now(UTC).replace(microsecond=0), Webhook(WHSEC), declared.standard_webhooks("S")
    theirs = {
        "webhook-id": delivery,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": oracle.sign(delivery, now, body),
    }
    assert taken(how, WHSEC, theirs, body, now) == delivery
    oracle.verify(body, sign(how, WHSEC, delivery, body.encode(), now), json_parse=False)


@given(body=bodies, delivery=st.from_regex(r"msg_[A-Za-z0-9]{1,40}", fullmatch=True))
def test_svix_own_library_agrees(body: str, delivery: str) -> None:
    """`svix` signs what we take and takes what we sign, under its own header names."""
    now, oracle, how = datetime.now(UTC).replace(microsecond=0), SvixWebhook(WHSEC), declared.svix("S")
    theirs = {
        "svix-id": delivery,
        "svix-timestamp": str(int(now.timestamp())),
        "svix-signature": oracle.sign(delivery, now, body),
    }
    assert taken(how, WHSEC, theirs, body, now) == delivery
    oracle.verify(body, sign(how, WHSEC, delivery, body.encode(), now))
    with pytest.raises(Unverified):
        taken(declared.standard_webhooks("S"), WHSEC, theirs, body, now)


@given(body=bodies)
def test_stripes_own_library_agrees(body: str) -> None:
    """`stripe` signs what we take and takes what we sign."""
    secret, how, now = "whsec_test_secret", declared.stripe("S"), datetime.now(UTC)
    theirs = WebhookSignature.generate_signature_header(body, secret, timestamp=int(now.timestamp()))
    taken(how, secret, {"Stripe-Signature": theirs}, body, now)
    [ours] = sign(how, secret, "", body.encode(), now).values()
    assert WebhookSignature.verify_header(body, ours, secret, tolerance=300)
    with pytest.raises(SignatureVerificationError):
        WebhookSignature.verify_header(body + "x", ours, secret, tolerance=300)


@given(body=bodies)
def test_slacks_own_library_agrees(body: str) -> None:
    """`slack_sdk` signs what we take and takes what we sign."""
    secret, how = "8f742231b10e8888abcd99yyyzzz85a5", declared.slack("S")
    oracle = SignatureVerifier(secret, clock=At())
    theirs = {
        "X-Slack-Request-Timestamp": str(SECONDS),
        "X-Slack-Signature": str(oracle.generate_signature(timestamp=str(SECONDS), body=body)),
    }
    taken(how, secret, theirs, body)
    ours = sign(how, secret, "", body.encode(), NOW)
    assert oracle.is_valid_request(body, ours)
    assert not oracle.is_valid_request(body + "x", ours)


def test_slacks_documented_example_verifies() -> None:
    """The request of Slack's documentation has the signature that it documents."""
    body = (
        "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        "&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    when = datetime.fromtimestamp(1531420618, UTC)
    found = taken(declared.slack("S"), "8f742231b10e8888abcd99yyyzzz85a5", headers, body, when)
    assert found == hashlib.sha256(body.encode()).hexdigest()


def test_githubs_documented_example_verifies() -> None:
    """The example of GitHub's documentation has the signature that it documents."""
    headers = {
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }
    found = taken(declared.github("S"), "It's a Secret to Everybody", headers, "Hello, World!")
    assert found == headers["X-GitHub-Delivery"]


def test_svix_documented_example_verifies() -> None:
    """The example of the Standard Webhooks libraries has the signature that they document."""
    secret, body, when = WHSEC, '{"test": 2432232314}', datetime.fromtimestamp(1614265330, UTC)
    values = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    for how, name in ((declared.standard_webhooks("S"), "webhook"), (declared.svix("S"), "svix")):
        headers = dict(zip((f"{name}-id", f"{name}-timestamp", f"{name}-signature"), values, strict=True))
        assert taken(how, secret, headers, body, when) == values[0]


def test_other_senders_are_declared_with_a_template() -> None:
    """What Zoom and Shopify document is said with `hmac_signed` alone."""
    body = json.dumps({"event": "x"})
    zoom = declared.hmac_signed(
        "S",
        header="x-zm-signature",
        prefix="v0=",
        signed="v0:{timestamp}:{body}",
        timestamp_header="x-zm-request-timestamp",
    )
    signature = hmac.new(b"one", f"v0:{SECONDS}:{body}".encode(), "sha256").hexdigest()
    taken(zoom, "one", {"x-zm-signature": f"v0={signature}", "x-zm-request-timestamp": str(SECONDS)}, body)
    shopify = declared.hmac_signed(
        "S", header="X-Shopify-Hmac-Sha256", encoding="base64", id_header="X-Shopify-Webhook-Id"
    )
    headers = sign(shopify, "one", "b54557e4", body.encode(), NOW)
    assert taken(shopify, "one", headers, body) == "b54557e4"
