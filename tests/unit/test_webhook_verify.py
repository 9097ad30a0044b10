"""Signatures: what is accepted, and that nothing else ever is."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from penstock.errors import SettingsError, Unverified
from penstock.verification import Verification, github, standard_webhooks, unverified
from penstock.webhook import verify as edge
from penstock.webhook.verify import sender_headers, sign, usable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = base64.b64encode(bytes(range(24))).decode()
SECRET = f"whsec_{KEY}"
OTHER = "whsec_" + base64.b64encode(b"another-secret-of-24-byte").decode()
STANDARD = standard_webhooks("HOOK_SECRET")
GITHUB = github("GITHUB_SECRET")
OPEN = unverified(because="a test")
BODY = b'{"a": 1}'


def verify(
    verification: Verification, secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime
) -> str:
    """Verify, with the headers as bytes in the way that HTTP gives them."""
    raw = [(name.encode(), value.encode(errors="surrogatepass")) for name, value in headers.items()]
    return edge.verify(verification, secrets, raw, body, now)


def secret_of(verification: Verification) -> str:
    return SECRET if verification.scheme == "standard" else "a plain secret"


@pytest.mark.parametrize("verification", [STANDARD, GITHUB, OPEN], ids=lambda v: v.scheme)
@given(body=st.binary(max_size=200), delivery=st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True))
def test_what_was_signed_is_verified(verification: Verification, body: bytes, delivery: str) -> None:
    """Whatever the sender signs is accepted under the id that it was signed with."""
    secret = secret_of(verification)
    headers = sign(verification, secret, delivery, body, NOW)
    assert verify(verification, [secret], {k.lower(): v for k, v in headers.items()}, body, NOW) == delivery


@pytest.mark.parametrize("verification", [STANDARD, GITHUB, OPEN], ids=lambda v: v.scheme)
def test_documented_headers_are_those_that_sign_makes(verification: Verification) -> None:
    """The headers a scheme documents are exactly those that its sender sends."""
    made = sign(verification, secret_of(verification), "id-1", BODY, NOW)
    assert {name.lower() for name in sender_headers(verification)} == set(made)


@pytest.mark.parametrize("verification", [STANDARD, GITHUB], ids=lambda v: v.scheme)
@pytest.mark.parametrize("secrets", [[], ["whsec_" + base64.b64encode(b"wrong" * 6).decode()]])
def test_without_the_right_secret_nothing_is_verified(verification: Verification, secrets: list[str]) -> None:
    """No secret at all and a wrong secret both refuse."""
    headers = sign(verification, secret_of(verification), "id-1", BODY, NOW)
    with pytest.raises(Unverified):
        verify(verification, secrets, headers, BODY, NOW)


@pytest.mark.parametrize("verification", [STANDARD, GITHUB], ids=lambda v: v.scheme)
def test_an_unset_secret_is_an_error_and_never_a_key(verification: Verification) -> None:
    """An empty secret raises also when the sender signed with the empty key."""
    digest = hmac.new(b"", BODY, hashlib.sha256).hexdigest()
    with pytest.raises(SettingsError):
        verify(verification, [""], {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": "1"}, BODY, NOW)
    assert not usable(verification, "")


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", "whsec_ü", "whsec_A", "whsec_===="])
def test_a_malformed_standard_secret_is_not_usable(secret: str) -> None:
    """A secret that is no base64, or of nothing, cannot verify or sign."""
    assert not usable(STANDARD, secret)
    with pytest.raises(SettingsError):
        sign(STANDARD, secret, "id-1", BODY, NOW)


def test_every_active_secret_verifies() -> None:
    """During a rotation the old and the new secret are both accepted, in whatever order."""
    headers = sign(STANDARD, OTHER, "id-1", BODY, NOW)
    assert verify(STANDARD, [SECRET, OTHER], headers, BODY, NOW) == "id-1"
    assert verify(STANDARD, [OTHER, SECRET], headers, BODY, NOW) == "id-1"


def test_one_good_signature_of_several_is_enough_and_unknown_versions_are_ignored() -> None:
    """A list with other versions, other keys and rubbish still verifies by its one good v1."""
    headers = sign(STANDARD, SECRET, "id-1", BODY, NOW)
    good = headers["webhook-signature"]
    headers["webhook-signature"] = f"v1a,xxxx v2,yyyy rubbish v1, v1,ÿ {good}"
    assert verify(STANDARD, [SECRET], headers, BODY, NOW) == "id-1"
    headers["webhook-signature"] = good.replace("v1,", "v2,")
    with pytest.raises(Unverified):
        verify(STANDARD, [SECRET], headers, BODY, NOW)


@pytest.mark.parametrize(("seconds", "accepted"), [(300, True), (301, False), (-300, True), (-301, False)])
def test_tolerance_holds_both_ways(seconds: int, accepted: bool) -> None:
    """A timestamp is taken up to the tolerance, in the past and in the future alike."""
    headers = sign(STANDARD, SECRET, "id-1", BODY, NOW + timedelta(seconds=seconds))
    if accepted:
        assert verify(STANDARD, [SECRET], headers, BODY, NOW) == "id-1"
    else:
        with pytest.raises(Unverified):
            verify(STANDARD, [SECRET], headers, BODY, NOW)


@pytest.mark.parametrize(
    "timestamp",
    ["", "nan", "inf", "-1772366400", "1772366400.0", "1_772_366_400", " 1772366400", "9" * 5000, "١٧٧٢٣٦٦٤٠٠", "0x1"],
)
def test_a_timestamp_that_is_no_whole_number_is_refused(timestamp: str) -> None:
    """Only ASCII digits are a timestamp, even when the signature covers what was sent."""
    content = f"id-1.{timestamp}.".encode() + BODY
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), content, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "id-1", "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
    with pytest.raises(Unverified):
        verify(STANDARD, [SECRET], headers, BODY, NOW)


def test_an_id_with_a_full_stop_is_refused() -> None:
    """The end of an id cannot pass for the timestamp: such ids are neither made nor taken."""
    with pytest.raises(Unverified):
        sign(STANDARD, SECRET, "id.1", BODY, NOW)
    body = b"%d.tail" % int(NOW.timestamp())
    headers = sign(STANDARD, SECRET, "id", body, NOW)
    shifted = {**headers, "webhook-id": f"id.{headers['webhook-timestamp']}"}
    with pytest.raises(Unverified):
        verify(STANDARD, [SECRET], shifted, b"tail", NOW)


@pytest.mark.parametrize("verification", [STANDARD, GITHUB], ids=lambda v: v.scheme)
@given(data=st.data())
def test_any_missing_header_and_any_changed_byte_refuses(verification: Verification, data: st.DataObject) -> None:
    """Leaving out a header or changing one byte of the body makes a request unverified."""
    headers = sign(verification, secret_of(verification), "id-1", BODY, NOW)
    missing = data.draw(st.sampled_from(sorted(headers)))
    with pytest.raises(Unverified):
        verify(
            verification,
            [secret_of(verification)],
            {k: v for k, v in headers.items() if k != missing},
            BODY,
            NOW,
        )
    at = data.draw(st.integers(0, len(BODY) - 1))
    changed = bytearray(BODY)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unverified):
        verify(verification, [secret_of(verification)], headers, bytes(changed), NOW)


names = st.sampled_from(
    ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256", "x-github-delivery"]
)
values = st.one_of(
    st.text(st.characters(), max_size=60),
    st.text("v1, =sha256:", max_size=40),
    st.sampled_from(["v1,", "sha256=", "1772366400", "id-1", "v1," + "A" * 44, "\ud800", "nan", "٣"]),
)


@pytest.mark.parametrize("verification", [STANDARD, GITHUB], ids=lambda v: v.scheme)
@given(headers=st.dictionaries(names, values), body=st.binary(max_size=60))
def test_rubbish_is_unverified_and_nothing_else(
    verification: Verification, headers: dict[str, str], body: bytes
) -> None:
    """Whatever the headers hold, the only answer is Unverified, with a message that gives nothing away."""
    with pytest.raises(Unverified) as refused:
        verify(verification, [secret_of(verification)], headers, body, NOW)
    assert str(refused.value) == "The request is not signed as its source says."


@given(headers=st.dictionaries(names, values), body=st.binary(max_size=60))
def test_an_open_source_takes_the_given_id_or_the_hash_of_the_body(headers: dict[str, str], body: bytes) -> None:
    """Without verification the id is webhook-id where it is one, and else stands for the body."""
    given_id = headers.get("webhook-id")
    try:
        found = verify(OPEN, [], headers, body, NOW)
    except Unverified:
        assert given_id is not None
        return
    assert found == given_id or (given_id is None and len(found) == 64)


@given(body=st.text(st.characters(codec="utf-8"), max_size=80), offset=st.integers(-400, 400))
def test_the_reference_implementation_agrees(body: str, offset: int) -> None:
    """What `standardwebhooks` signs we take, and what we sign it takes, within the same tolerance."""
    now = datetime.now(UTC).replace(microsecond=0)
    oracle = Webhook(SECRET)
    sent = now + timedelta(seconds=offset)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": oracle.sign("msg_1", sent, body),
    }
    ours = sign(STANDARD, SECRET, "msg_1", body.encode(), sent)
    assert ours == headers
    # Its clock is the real one and a second may pass between the two calls: the edge is left out.
    if abs(abs(offset) - 300) < 10:
        return
    if abs(offset) < 300:
        assert verify(STANDARD, [SECRET], headers, body.encode(), now) == "msg_1"
        oracle.verify(body, ours, json_parse=False)
    else:
        with pytest.raises(Unverified):
            verify(STANDARD, [SECRET], headers, body.encode(), now)
        with pytest.raises(WebhookVerificationError):
            oracle.verify(body, ours, json_parse=False)


def test_githubs_documented_example_verifies() -> None:
    """The example of GitHub's documentation has the signature that it documents."""
    headers = {
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }
    found = verify(GITHUB, ["It's a Secret to Everybody"], headers, b"Hello, World!", NOW)
    assert found == headers["x-github-delivery"]
