"""What is particular to single schemes: their keys, lists of signatures, templates, and where their ids stand."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from penstock import verification as declared
from penstock.errors import SettingsError, Unverified
from penstock.webhook.verify import can_sign, challenge, sign, usable, verify
from tests.unit.verify_cases import CASES, NOW, PUBLIC, SEED, WHSEC, WHSK, hmac_case, made, plain, raw, refused, taken


def test_a_public_key_verifies_and_cannot_sign() -> None:
    """With the public key alone nobody signs; it verifies no HMAC that was made with it either."""
    how = declared.standard_webhooks("S")
    assert usable(how, PUBLIC)
    assert not can_sign(how, PUBLIC)
    with pytest.raises(SettingsError):
        sign(how, PUBLIC, "d-1", b"{}", NOW)
    key = base64.b64decode(PUBLIC.removeprefix("whpk_"))
    forged = sign(how, f"whsec_{base64.b64encode(key).decode()}", "d-1", b"{}", NOW)
    with pytest.raises(Unverified):
        verify(how, [PUBLIC], raw(forged), b"{}", NOW)


def test_a_private_key_may_carry_its_public_one() -> None:
    """32 bytes are a seed, 64 a seed and its public key; two halves that do not belong together are no secret."""
    how = declared.standard_webhooks("S")
    public = base64.b64decode(PUBLIC.removeprefix("whpk_"))
    both = f"whsk_{base64.b64encode(SEED + public).decode()}"
    assert sign(how, both, "d-1", b"{}", NOW) == sign(how, WHSK, "d-1", b"{}", NOW)
    assert not usable(how, f"whsk_{base64.b64encode(SEED + SEED).decode()}")


def test_shared_secret_and_public_key_may_be_active_together() -> None:
    """A sender that moves from v1 to v1a, and signs with both or with either, is verified throughout."""
    how = declared.standard_webhooks("S", "P")
    one, other = sign(how, WHSEC, "d-1", b"{}", NOW), sign(how, WHSK, "d-1", b"{}", NOW)
    both = {**one, "webhook-signature": f"{one['webhook-signature']} {other['webhook-signature']}"}
    for headers in (one, other, both):
        assert verify(how, [WHSEC, PUBLIC], raw(headers), b"{}", NOW) == "d-1"
    assert verify(how, [PUBLIC], raw(both), b"{}", NOW) == "d-1"
    with pytest.raises(Unverified):
        verify(how, [PUBLIC], raw(one), b"{}", NOW)


def test_rfc_8032_signatures_verify() -> None:
    """The key pair of the first test vector of RFC 8032 is the one that this module derives."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    how = declared.standard_webhooks("S")
    headers = sign(how, f"whsk_{base64.b64encode(seed).decode()}", "d-1", b"{}", NOW)
    assert verify(how, [f"whpk_{base64.b64encode(public).decode()}"], raw(headers), b"{}", NOW) == "d-1"


@pytest.mark.parametrize("many", [16, 17])
def test_a_list_of_signatures_is_bounded(many: int) -> None:
    """Sixteen parts are looked at; with more the request is refused, good ones or not."""
    standard = sign(CASES[0].how, WHSEC, "d-1", b"{}", NOW)
    standard["webhook-signature"] += " v1,x" * (many - 1)
    stripe = plain("stripe", declared.stripe("S"))
    [(name, good)] = made(stripe, body=b"{}")
    stripe_headers = [(name, good + b",v1=x" * (many - 2))]
    if many == 16:
        taken(CASES[0], raw(standard), b"{}")
        taken(stripe, stripe_headers, b"{}")
    else:
        refused(CASES[0], raw(standard), b"{}")
        refused(stripe, stripe_headers, b"{}")


def test_stripe_takes_one_time_and_any_of_its_signatures() -> None:
    """Several v1 are alternatives and other versions are passed over; two times are one too many."""
    case = plain("stripe", declared.stripe("S"))
    [(name, good)] = made(case)
    stamp, _, signature = good.partition(b",v1=")
    taken(case, [(name, stamp + b",v0=x,v1=bad,v1=" + signature)])
    refused(case, [(name, stamp + b"," + good)])
    refused(case, [(name, stamp + b",v0=" + signature)])
    refused(case, [(name, b"v1=" + signature)])


def test_the_parts_of_a_template_cannot_shift() -> None:
    """An id cannot hold what separates it from the next part, so nothing moves from one part into another."""
    case = hmac_case("shift", signed="{id}.{body}", id_header="X-Id")
    headers = dict(made(case, body=b"tail.rest", delivery="d"))
    moved = {**headers, b"x-id": b"d.tail"}
    refused(case, list(moved.items()), b"rest")
    with pytest.raises(Unverified):
        made(case, delivery="d.1")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("standard", "d-1"),
        ("svix", "d-1"),
        ("stripe", "evt_1"),
        ("github", "d-1"),
        ("slack", "Ev1"),
        ("hmac-body", None),
        ("hmac-all", "d-1"),
        ("bearer", "d-1"),
        ("basic", "d-1"),
    ],
)
def test_each_scheme_knows_where_its_id_stands(case: str, expected: str | None) -> None:
    """The id is the sender's own where the scheme has one, and else the hash of the body."""
    [found] = [one for one in CASES if one.name == case]
    assert taken(found, made(found)) == (expected or hashlib.sha256(found.body).hexdigest())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": {"id": "x"}}', "x"),
        (b'{"a": {"id": 12}}', "12"),
        (b'{"a": {"id": true}}', None),
        (b'{"a": {"id": null}}', None),
        (b'{"a": {"id": ""}}', None),
        (b'{"a": {"id": "with space"}}', None),
        (b'{"a": {"id": "\\ud800"}}', None),
        (b'{"a": {"id": "\\u0000"}}', None),
        (json.dumps({"a": {"id": "x" * 256}}).encode(), None),
        (b'{"a": {"id": ' + b"9" * 5000 + b"}}", None),
        (b'{"a": {"id": ' + b"9" * 300 + b"}}", None),
        (b'{"a": "id"}', None),
        (b'["a"]', None),
        (b"{", None),
        (b"\xff\xfe\xff", None),
        (b"[" * 200_000, None),
        (b'{"a":' * 200_000, None),
        (b"", None),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
def test_an_id_in_the_body_is_found_or_the_body_is_hashed(body: bytes, expected: str | None) -> None:
    """Of whatever body, be it no JSON at all, there is an id."""
    case = hmac_case("field")
    found = taken(case, made(case, body=body), body, dedup=declared.id_field("a.id"))
    assert found == (expected or hashlib.sha256(body).hexdigest())


def test_a_source_may_say_where_its_ids_are() -> None:
    """What a source declares goes before what its scheme says; a header sent twice, or that is no id, refuses."""
    case = plain("stripe", declared.stripe("S"))
    headers, where = made(case), declared.id_header("X-Id")
    assert taken(case, [*headers, (b"x-id", b"mine")], dedup=where) == "mine"
    assert taken(case, headers, dedup=where) == hashlib.sha256(case.body).hexdigest()
    assert taken(case, headers, dedup=declared.id_of_body()) == hashlib.sha256(case.body).hexdigest()
    for bad in ([(b"x-id", b"a"), (b"x-id", b"a")], [(b"x-id", b"a b")], [(b"x-id", b"\xff")], [(b"x-id", b"")]):
        with pytest.raises(Unverified):
            taken(case, [*headers, *bad], dedup=where)


def test_a_refusal_asks_for_what_the_scheme_takes() -> None:
    """WWW-Authenticate names Bearer and Basic where those are meant, and else a signature."""
    found = {case.name: challenge(case.how).partition(" ")[0] for case in CASES}
    assert (found["bearer"], found["basic"], found["stripe"], found["standard"]) == (
        "Bearer",
        "Basic",
        "Signature",
        "Signature",
    )
