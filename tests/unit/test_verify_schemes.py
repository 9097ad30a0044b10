"""Every scheme alike: what was signed is taken, and nothing else ever is, in whatever form it comes."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import verification as declared
from penstock.errors import SettingsError, Unverified
from penstock.webhook.verify import can_sign, new_secret, sender_headers, usable, verify
from tests.unit.verify_cases import (
    CASES,
    NOW,
    Case,
    Raw,
    each,
    each_signed,
    each_timed,
    flips,
    made,
    plain,
    put,
    refused,
    taken,
)


@each
@given(body=st.binary(max_size=300))
def test_what_was_signed_is_taken(case: Case, body: bytes) -> None:
    """Whatever bytes the sender signs are verified, and the id is the same each time."""
    headers = made(case, body=body)
    assert taken(case, headers, body) == taken(case, headers, body)


@each_signed
def test_every_bit_of_a_short_body_counts(case: Case) -> None:
    """No single bit of the body can be changed, left out or added."""
    headers = made(case)
    taken(case, headers)
    for changed in flips(case.body):
        refused(case, headers, changed)
    refused(case, headers, case.body[:-1])
    refused(case, headers, case.body + b"\0")


@each
def test_every_bit_of_what_is_signed_counts(case: Case) -> None:
    """No single bit of a signature, of a signed id or of a time can be changed."""
    headers = made(case)
    values = dict(headers)
    for name in case.protected:
        for changed in flips(values[name.encode()]):
            refused(case, put(headers, name, changed))


@each_signed
@given(data=st.data())
def test_every_bit_of_any_body_counts(case: Case, data: st.DataObject) -> None:
    """No bit of any body can be changed, wherever it stands."""
    body = data.draw(st.binary(min_size=1, max_size=2000))
    at, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    refused(case, made(case, body=body), body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :])


@each
def test_every_bit_of_a_token_counts(case: Case) -> None:
    """Of an Authorization header only the case of its first word may change, as HTTP says."""
    headers = made(case)
    value = dict(headers).get(b"authorization")
    if value is None:
        return
    kind = value.partition(b" ")[0]
    for changed in flips(value):
        if changed.lower().startswith(kind.lower() + b" ") and changed.partition(b" ")[2] == value.partition(b" ")[2]:
            taken(case, put(headers, "authorization", changed))
        else:
            refused(case, put(headers, "authorization", changed))


@each
def test_a_header_that_is_missing_empty_or_doubled_refuses(case: Case) -> None:
    """Each header that a sender must send has to come exactly once, and hold something."""
    headers = made(case)
    for name in (name.lower() for name in sender_headers(case.how)):
        key = name.encode()
        without = [(other, value) for other, value in headers if other != key]
        value = dict(headers)[key]
        refused(case, without)
        refused(case, [*without, (key, b"")])
        refused(case, [*headers, (key, value)])
        refused(case, [(key, b"x"), *headers])
        refused(case, [*without, (key, value + b", " + value)])
        taken(case, [*without, (name.upper().encode(), value)])


@each
def test_only_an_active_secret_verifies_and_any_of_them_does(case: Case) -> None:
    """In a rotation the old and the new secret both verify, in whatever order; one that was withdrawn does not."""
    headers = made(case)
    assert taken(case, headers, secrets=[case.other, case.verifying])
    assert taken(case, headers, secrets=[case.verifying, case.other])
    refused(case, headers, secrets=[case.other])
    refused(case, made(case, secret=case.other))
    with pytest.raises(Unverified):
        verify(case.how, [], headers, case.body, NOW)


@each_timed
@pytest.mark.parametrize("seconds", [300, 301, -300, -301, 86_400, -86_400])
def test_tolerance_holds_both_ways(case: Case, seconds: int) -> None:
    """A time is taken up to the tolerance, in the past and in the future alike."""
    headers = made(case, at=NOW + timedelta(seconds=seconds))
    if abs(seconds) <= 300:
        taken(case, headers)
    else:
        refused(case, headers)


def test_no_time_is_read_as_a_number_that_is_not_written_so() -> None:
    """Only ASCII digits are a time, also where the signature covers what was sent."""
    seconds = int(NOW.timestamp())
    for written in (
        f"{seconds}.0",
        f"+{seconds}",
        f" {seconds}",
        f"{seconds:_}",
        "nan",
        "-1",
        "",
        "9" * 5000,
        "٣" * 10,
    ):
        stamp = written.encode()
        slack = hmac.new(b"one", b"v0:%b:{}" % stamp, "sha256").hexdigest().encode()
        stripe = hmac.new(b"one", stamp + b".{}", "sha256").hexdigest().encode()
        found = [(b"x-slack-request-timestamp", stamp), (b"x-slack-signature", b"v0=" + slack)]
        refused(plain("slack", declared.slack("S")), found, b"{}")
        refused(plain("stripe", declared.stripe("S")), [(b"stripe-signature", b"t=%b,v1=%b" % (stamp, stripe))], b"{}")


names = st.sampled_from(
    sorted({name.lower().encode() for case in CASES for name in sender_headers(case.how)} | {b"webhook-id"})
)
pieces = st.sampled_from(
    (
        *(b"v1,", b"v1a,", b"v0=", b"sha256=", b"t=", b"v1=", b",", b" ", b"=", b".", b":", b"\0", b"\xff", b"\r\n"),
        *(b"Bearer ", b"Basic ", b"1772366400", b"9" * 400, b"A" * 88, b"A" * 86 + b"==", b"d-1", b"\xed\xa0\x80"),
    )
)
values = st.one_of(st.binary(max_size=80), st.lists(pieces, max_size=12).map(b"".join))


@each
@given(headers=st.lists(st.tuples(names, values), max_size=8), body=st.binary(max_size=60))
@example(headers=[(b"webhook-signature", b"v1," * 10_000)], body=b"")
@example(headers=[(b"stripe-signature", b"t=1," * 10_000)], body=b"\xff\xfe")
@example(headers=[(b"", b""), (b"\xff", b"\xff")], body=b"[" * 100_000)
def test_rubbish_is_refused_and_nothing_is_raised(case: Case, headers: Raw, body: bytes) -> None:
    """Whatever the headers hold, as whatever bytes, the one answer is a refusal that gives nothing away."""
    refused(case, headers, body)


@each_signed
@given(data=st.data())
def test_rubbish_beside_what_is_good_never_raises(case: Case, data: st.DataObject) -> None:
    """A good request with any one header replaced or doubled is taken or refused, and never an error."""
    headers = made(case)
    name, _ = data.draw(st.sampled_from(headers))
    changed = put(headers, name.decode(), data.draw(values))
    if data.draw(st.booleans()):
        changed.append((data.draw(names), data.draw(values)))
    with suppress(Unverified):
        taken(case, changed)


@each
def test_secrets_are_compared_in_constant_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every comparison with a secret goes through `hmac.compare_digest`, all pairs of them; ed25519 has no secret."""
    compared: list[tuple[bytes, bytes]] = []
    real: Callable[[bytes, bytes], bool] = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    taken(case, made(case), secrets=[case.verifying, case.other, case.verifying])
    expected = 0 if case.name == "standard-ed25519" else 3
    assert len(compared) == expected
    assert len({len(one) for pair in compared for one in pair}) == (1 if expected else 0)


@each
@pytest.mark.parametrize("secret", ["", "\udcff", "whsec_", "whpk_", "whsk_", "whpk_AAAA", "whsk_AAAA"])
def test_what_is_no_secret_is_an_error_without_its_value(case: Case, secret: str) -> None:
    """An unset or malformed secret neither verifies nor signs, and its error holds nothing of it."""
    if usable(case.how, secret):
        assert secret
        assert case.how.scheme not in ("standard", "svix")
        return
    for attempt in (lambda: taken(case, [], secrets=[secret]), lambda: made(case, secret=secret or "\udcff")):
        with pytest.raises(SettingsError) as found:
            attempt()
        assert found.value.__cause__ is None
        assert "AAAA" not in str(found.value)
    assert not can_sign(case.how, secret)


@each
def test_a_secret_that_is_made_signs_and_verifies(case: Case) -> None:
    """What `up` makes for a source is a secret of its scheme."""
    secret = new_secret(case.how, bytes(range(32)))
    assert can_sign(case.how, secret)
    assert taken(case, made(case, secret=secret), secrets=[secret])
