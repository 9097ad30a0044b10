"""What the senders' own libraries signed, with any one bit of it changed; and the same signature in other letters."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from stripe import WebhookSignature
from svix.webhooks import Webhook as SvixWebhook

from penstock import verification as declared
from penstock.errors import Unverified
from penstock.verification import DeliveryId, Verification
from penstock.webhook.verify import verify
from tests.unit.verify_cases import CASES, PUBLIC, WHSK, Raw, flips, made, plain, put, refused, taken

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = str(int(NOW.timestamp()))
WHSEC = "whsec_" + base64.b64encode(b"a secret of the tests alone").decode()
BODY = '{"id":"evt_1","event_id":"Ev1"}'


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A request that its sender's library signed. No signature covers the `unsigned` headers."""

    name: str
    how: Verification
    secret: str
    sign: Callable[[str], dict[str, str]]
    unsigned: tuple[str, ...] = ()

    @cached_property
    def headers(self) -> Raw:
        """For the short body."""
        return self.signed(BODY)

    def signed(self, body: str) -> Raw:
        """For any body."""
        return [(name.encode(), value.encode()) for name, value in self.sign(body).items()]

    def verify(self, headers: Raw, body: bytes, dedup: DeliveryId | None = None) -> str:
        """The delivery's id, or Unverified."""
        return verify(self.how, [self.secret], headers, body, NOW, dedup=dedup)


def _standard(name: str, library: Webhook | SvixWebhook) -> Callable[[str], dict[str, str]]:
    return lambda body: {
        f"{name}-id": "msg_1",
        f"{name}-timestamp": SECONDS,
        f"{name}-signature": library.sign("msg_1", NOW, body),
    }


def _github(body: str) -> dict[str, str]:
    """GitHub has no library; its documented example in `test_verify_senders.py` shows that this is what it does."""
    signature = hmac.new(b"one", body.encode(), "sha256").hexdigest()
    return {"X-GitHub-Delivery": "72d3162e", "X-Hub-Signature-256": f"sha256={signature}"}


VECTORS = [
    Vector(
        name="standard",
        how=declared.standard_webhooks("S"),
        secret=WHSEC,
        sign=_standard("webhook", Webhook(WHSEC)),
    ),
    Vector(name="svix", how=declared.svix("S"), secret=WHSEC, sign=_standard("svix", SvixWebhook(WHSEC))),
    Vector(
        name="stripe",
        how=declared.stripe("S"),
        secret="one",
        sign=lambda body: {
            "Stripe-Signature": WebhookSignature.generate_signature_header(body, "one", timestamp=int(SECONDS))
        },
    ),
    Vector(
        name="slack",
        how=declared.slack("S"),
        secret="one",
        sign=lambda body: {
            "X-Slack-Request-Timestamp": SECONDS,
            "X-Slack-Signature": str(SignatureVerifier("one").generate_signature(timestamp=SECONDS, body=body)),
        },
    ),
    Vector(name="github", how=declared.github("S"), secret="one", sign=_github, unsigned=("X-GitHub-Delivery",)),
]
each = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


@each
def test_every_bit_of_a_body_that_the_sender_signed_counts(vector: Vector) -> None:
    """As it came it is verified; with any one bit changed it is refused."""
    vector.verify(vector.headers, BODY.encode())
    for changed in flips(BODY.encode()):
        with pytest.raises(Unverified):
            vector.verify(vector.headers, changed)


@each
@given(body=st.text(st.characters(codec="utf-8"), min_size=200, max_size=5000), data=st.data())
def test_every_bit_of_a_long_body_that_the_sender_signed_counts(vector: Vector, body: str, data: st.DataObject) -> None:
    """Wherever in it the bit is."""
    headers, sent = vector.signed(body), bytearray(body.encode())
    vector.verify(headers, bytes(sent))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Unverified):
        vector.verify(headers, bytes(sent))


@each
def test_every_bit_of_id_time_and_signature_counts(vector: Vector) -> None:
    """With any one bit changed of what its library put into the headers the request is refused.

    GitHub signs no id: who captured a request can send it again under another one, and it is another delivery then.
    Such a source can have its ids made of the body, `dedup=id_of_body()`, where no two deliveries are the same.
    """
    for name, value in vector.headers:
        for changed in flips(value):
            sent = put(vector.headers, name.decode(), changed)
            if name.decode() in vector.unsigned:
                try:
                    assert vector.verify(sent, BODY.encode()) == changed.decode()
                except Unverified:
                    assert not changed.decode("latin-1").isascii() or not changed.decode().isprintable()
                same = vector.verify(vector.headers, BODY.encode(), dedup=declared.id_of_body())
                assert vector.verify(sent, BODY.encode(), dedup=declared.id_of_body()) == same
                continue
            with pytest.raises(Unverified):
                vector.verify(sent, BODY.encode())


@each
def test_every_bit_of_a_headers_name_counts(vector: Vector) -> None:
    """A header of another name is another header; only upper and lower case are the same, as HTTP says."""
    for name, value in vector.headers:
        if name.decode() in vector.unsigned:
            continue
        for changed in flips(name):
            sent = [(changed if one == name else one, was) for one, was in vector.headers]
            if changed.lower() == name.lower():
                assert vector.verify(sent, BODY.encode()) == vector.verify(vector.headers, BODY.encode()), value
            else:
                with pytest.raises(Unverified):
                    vector.verify(sent, BODY.encode())


@pytest.mark.parametrize("name", ["stripe", "github", "slack", "hmac-body"])
def test_hex_in_upper_case_is_another_signature(name: str) -> None:
    """A signature has one form; another would be no replay, since the delivery's id stays what it is."""
    [case] = [case for case in CASES if case.name == name]
    for header, value in made(case):
        changed = (
            value.rpartition(b"=")[0] + b"=" + value.rpartition(b"=")[2].upper() if b"=" in value else value.upper()
        )
        if header.decode() in case.protected and changed != value:
            refused(case, put(made(case), header.decode(), changed))


@pytest.mark.parametrize("name", ["standard", "standard-ed25519", "svix", "hmac-base64", "hmac-all", "basic"])
def test_base64_in_other_letters_is_another_signature(name: str) -> None:
    """Without padding, with more, with blanks, in the other alphabet, with other bits where they mean nothing."""
    [case] = [case for case in CASES if case.name == name]
    header, value = next((header, value) for header, value in made(case) if value.endswith(b"=") or b"v1" in value)
    bare = value.rstrip(b"=")
    forms = {bare, value + b"=", value + b"\n", bare[:-1] + b" " + bare[-1:] + value[len(bare) :]}
    forms.add(value.replace(b"+", b"-").replace(b"/", b"_"))
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = letters.index(bare[-1:])
    forms |= {bare[:-1] + letters[at ^ bits : (at ^ bits) + 1] + value[len(bare) :] for bits in range(1, 16)}
    for form in forms - {value}:
        refused(case, put(made(case), header.decode(), form))


def test_an_ed25519_signature_cannot_be_made_into_another() -> None:
    """With the group's order added to its second half (RFC 8032, 5.1.7) it is another signature that would fit."""
    case = next(case for case in CASES if case.name == "standard-ed25519")
    assert (case.signing, case.verifying) == (WHSK, PUBLIC)
    headers = made(case)
    taken(case, headers)
    signature = base64.b64decode(dict(headers)[b"webhook-signature"].removeprefix(b"v1a,"))
    order = 2**252 + 27742317777372353535851937790883648493
    second = int.from_bytes(signature[32:], "little") + order
    moved = signature[:32] + second.to_bytes(32, "little")
    refused(case, put(headers, "webhook-signature", b"v1a," + base64.b64encode(moved)))


@pytest.mark.parametrize("stamp", ["0{}", "{}.0", "{} ", " {}", "+{}", "{}e0"])
def test_a_time_in_other_digits_is_another_time(stamp: str) -> None:
    """What is signed are the bytes of the time, not the moment."""
    written = stamp.format(int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())).encode()
    slack, stripe = plain("slack", declared.slack("S")), plain("stripe", declared.stripe("S"))
    refused(slack, put(made(slack), "x-slack-request-timestamp", written))
    [(name, value)] = made(stripe)
    refused(stripe, [(name, b"t=" + written + b"," + value.partition(b",")[2])])
