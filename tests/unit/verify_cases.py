"""A source of every scheme, and how the tests send what it signs."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import verification as declared
from penstock.errors import Unverified
from penstock.verification import DeliveryId, Verification
from penstock.webhook.verify import sign, verify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SEED = bytes(range(32))
PUBLIC = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
REFUSED = "The request is not signed as its source says."
Raw = list[tuple[bytes, bytes]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scheme with its secrets. `protected` are the headers of which no bit may change."""

    name: str
    how: Verification
    signing: str
    verifying: str
    other: str
    protected: tuple[str, ...]
    body: bytes = b'{"id":"evt_1","event_id":"Ev1"}'


def plain(name: str, how: Verification, *protected: str) -> Case:
    return Case(name=name, how=how, signing="one", verifying="one", other="another", protected=protected)


def hmac_case(name: str, **how: Any) -> Case:
    found = declared.hmac_signed("S", header="X-Sig", **how)
    protected = [value.lower() for key, value in how.items() if key.endswith("_header")]
    if "{id}" not in how.get("signed", ""):
        protected = [header for header in protected if header != how.get("id_header", "").lower()]
    return plain(name, found, "x-sig", *protected)


WHSEC, WHSEC_OTHER = (f"whsec_{base64.b64encode(bytes([n] * 24)).decode()}" for n in (1, 2))
WHSK, WHSK_OTHER = (f"whsk_{base64.b64encode(seed).decode()}" for seed in (SEED, SEED[::-1]))
STANDARD_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

CASES = [
    Case(
        name="standard",
        how=declared.standard_webhooks("S"),
        signing=WHSEC,
        verifying=WHSEC,
        other=WHSEC_OTHER,
        protected=STANDARD_HEADERS,
    ),
    Case(
        name="standard-ed25519",
        how=declared.standard_webhooks("S"),
        signing=WHSK,
        verifying=PUBLIC,
        other=WHSK_OTHER,
        protected=STANDARD_HEADERS,
    ),
    Case(
        name="svix",
        how=declared.svix("S"),
        signing=WHSEC,
        verifying=WHSEC,
        other=WHSEC_OTHER,
        protected=("svix-id", "svix-timestamp", "svix-signature"),
    ),
    plain("stripe", declared.stripe("S"), "stripe-signature"),
    plain("github", declared.github("S"), "x-hub-signature-256"),
    plain("slack", declared.slack("S"), "x-slack-signature", "x-slack-request-timestamp"),
    hmac_case("hmac-body"),
    hmac_case("hmac-base64", algorithm="sha512", encoding="base64", prefix="sha512="),
    hmac_case("hmac-time", algorithm="sha384", signed="{timestamp}.{body}", timestamp_header="X-Time"),
    hmac_case(
        "hmac-all",
        signed="v1:{id}:{body}:{timestamp}",
        timestamp_header="X-Time",
        id_header="X-Id",
        encoding="base64",
    ),
    plain("bearer", declared.bearer("S")),
    plain("token", declared.bearer("S", header="X-Gitlab-Token"), "x-gitlab-token"),
    plain("basic", declared.basic("S", user="shop")),
]
SIGNED = [case for case in CASES if case.how.scheme not in ("bearer", "basic")]
TIMED = [
    case for case in CASES if case.name in ("standard", "standard-ed25519", "svix", "stripe", "slack", "hmac-time")
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_signed = pytest.mark.parametrize("case", SIGNED, ids=lambda case: case.name)
each_timed = pytest.mark.parametrize("case", TIMED, ids=lambda case: case.name)


def raw(headers: Mapping[str, str]) -> Raw:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def made(case: Case, *, body: bytes | None = None, at: datetime = NOW, secret: str = "", delivery: str = "d-1") -> Raw:
    return raw(sign(case.how, secret or case.signing, delivery, case.body if body is None else body, at))


def taken(
    case: Case, headers: Raw, body: bytes | None = None, secrets: Sequence[str] = (), dedup: DeliveryId | None = None
) -> str:
    content = case.body if body is None else body
    return verify(case.how, secrets or [case.verifying], headers, content, NOW, dedup=dedup)


def refused(case: Case, headers: Raw, body: bytes | None = None, secrets: Sequence[str] = ()) -> None:
    with pytest.raises(Unverified) as found:
        taken(case, headers, body, secrets)
    assert str(found.value) == REFUSED
    assert found.value.__cause__ is None


def flips(value: bytes) -> Iterator[bytes]:
    for at in range(len(value)):
        for bit in range(8):
            yield value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :]


def put(headers: Raw, name: str, value: bytes) -> Raw:
    return [(key, value if key.decode() == name else old) for key, old in headers]
