"""What is kept of refused requests: no secret, and never more than the bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from penstock.errors import DeclarationError
from penstock.sources import Source
from penstock.verification import (
    Verification,
    basic,
    bearer,
    github,
    hmac_signed,
    id_header,
    slack,
    standard_webhooks,
    stripe,
    svix,
    unverified,
)
from penstock.webhook.problems import KINDS
from penstock.webhook.rejected import (
    BODY_BYTES,
    HEADER_CHARACTERS,
    KEPT_KINDS,
    REDACTED,
    Keeper,
    Missed,
    Rejected,
    make_rejected,
)
from tests.waiting import wait_for

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"t0p-secret-value"
HMAC = hmac_signed("S", header="X-Own-Mac", signed="{timestamp}.{body}", timestamp_header="X-When", id_header="X-Which")

# Each scheme with the headers that carry what verifies, and those that tell the id and the time.
SCHEMES: Sequence[tuple[str, Verification, Sequence[str], Sequence[str]]] = (
    ("standard", standard_webhooks("S"), ["webhook-signature"], ["webhook-id", "webhook-timestamp"]),
    ("svix", svix("S"), ["svix-signature"], ["svix-id", "svix-timestamp"]),
    ("stripe", stripe("S"), ["stripe-signature"], []),
    ("github", github("S"), ["x-hub-signature-256", "x-hub-signature"], ["x-github-delivery"]),
    ("slack", slack("S"), ["x-slack-signature"], ["x-slack-request-timestamp"]),
    ("hmac", HMAC, ["x-own-mac"], ["x-when", "x-which"]),
    ("bearer", bearer("S"), ["authorization"], []),
    ("token", bearer("S", header="X-Pass"), ["x-pass"], []),
    ("basic", basic("S", user="u"), ["authorization"], []),
    ("none", unverified(because="a test"), [], ["webhook-id"]),
)
ALWAYS_SECRET = ("authorization", "proxy-authorization", "cookie", "x-api-key", "x-amz-security-token", "x-new-thing")


def make(source: Source, *headers: tuple[bytes, bytes], body: bytes = b"{}", size: int | None = None) -> Rejected:
    return make_rejected(
        source,
        at=NOW,
        kind="unverified",
        detail="The request is not signed as this source says.",
        address="192.0.2.1",
        request="r-1",
        headers=headers,
        body=body,
        size=size,
    )


@pytest.mark.parametrize(
    ("verification", "secret", "plain"), [scheme[1:] for scheme in SCHEMES], ids=[scheme[0] for scheme in SCHEMES]
)
def test_no_secret_is_kept(verification: Verification, secret: Sequence[str], plain: Sequence[str]) -> None:
    """Of every scheme id and time are kept, and nothing that verifies or logs in, however it is written."""
    source = Source(name="shop", dataset="sales", verify=verification)
    sent = [(name.upper().encode(), SECRET) for name in (*secret, *ALWAYS_SECRET)]
    told = [(name.title().encode(), b"told") for name in (*plain, "content-type", "user-agent", "date")]
    kept = make(source, *sent, *told)
    assert dict(kept.headers) == {
        **dict.fromkeys((*secret, *ALWAYS_SECRET), REDACTED),
        **dict.fromkeys((*plain, "content-type", "user-agent", "date"), "told"),
    }
    assert SECRET.decode() not in repr(kept)
    assert kept.content_type == "told"


def test_what_a_source_keeps_is_kept_unless_it_is_a_secret() -> None:
    """A header that the source declares, or has its id in, is kept; one that verifies cannot be declared."""
    source = Source(name="shop", dataset="sales", verify=HMAC, headers=["x-shop"], dedup=id_header("x-key"))
    for secret in ("X-Own-Mac", "x-csrf-token", "Cookie"):
        with pytest.raises(DeclarationError, match="holds a secret"):
            Source(name="shop", dataset="sales", verify=HMAC, headers=["x-shop", secret])
    kept = make(source, *((name, b"v") for name in (b"x-shop", b"x-own-mac", b"x-csrf-token", b"X-Key")))
    assert kept.headers == (("x-shop", "v"), ("x-own-mac", REDACTED), ("x-csrf-token", REDACTED), ("x-key", "v"))


def test_what_is_kept_is_bounded() -> None:
    """The body is cut and its length told, also where it was never read; headers end where their room does."""
    source = Source(name="shop", dataset="sales", verify=github("S"))
    kept = make(source, body=b"x" * (BODY_BYTES + 1))
    assert (len(kept.body), kept.bytes) == (BODY_BYTES, BODY_BYTES + 1)
    assert make(source, body=b"", size=10**12).bytes == 10**12
    for length, told in ((b"5000000", 5_000_000), (b"9" * 400, 0), ("²".encode("latin-1"), 0), (b"-1", 0)):
        assert make(source, (b"Content-Length", length), body=b"").bytes == told
    many = make(source, *((b"user-agent", b"\xff" * 4000) for _ in range(1000)), (b"h" * 60_000, b""))
    assert sum(len(name) + len(value) for name, value in many.headers) <= HEADER_CHARACTERS
    assert len(many.headers) >= 10


def test_the_kinds_that_are_kept_are_kinds() -> None:
    """Each is one of the closed set, and none of them asks the sender to come again."""
    assert KINDS.keys() >= KEPT_KINDS
    assert all(KINDS[kind][0] in (400, 401, 413, 415) for kind in KEPT_KINDS)


@dataclass(kw_only=True)
class Desk:
    """A keeper with its ledger in memory, and a clock that a test moves. While `open` is cleared, writing waits."""

    kept: list[tuple[Rejected, datetime]] = field(default_factory=list)
    missed: list[tuple[str, Missed]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    old: int = 0
    now: float = 0.0
    broken: bool = False
    open: threading.Event = field(default_factory=threading.Event)
    writing: threading.Event = field(default_factory=threading.Event)

    def keep(self, found: Sequence[tuple[Rejected, datetime]]) -> None:
        """Write."""
        self.writing.set()
        assert self.open.wait(30)
        if self.broken:
            raise OSError("the disk is full")
        self.groups.append(len(found))
        self.kept += found

    def expire(self) -> int:
        """Forget a few."""
        gone = min(self.old, 2)
        self.old -= gone
        return gone

    def miss(self, source: str, why: Missed) -> None:
        """Count."""
        self.missed.append((source, why))


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.open.set()
    return made


@contextmanager
def keeper(desk: Desk, *, per_minute: int = 10, waiting: int = 64, expire_seconds: float = 3600) -> Iterator[Keeper]:
    made = Keeper(
        days={"shop": 2, "mill": 0, "bank": 1},
        keep=desk.keep,
        expire=desk.expire,
        missed=desk.miss,
        per_minute=per_minute,
        waiting=waiting,
        expire_seconds=expire_seconds,
        monotonic=lambda: desk.now,
    )
    made.start()
    try:
        yield made
    finally:
        desk.open.set()
        made.close()


def one(source: str = "shop", kind: str = "unverified") -> Rejected:
    return Rejected(
        source=source,
        at=NOW,
        kind=kind,
        detail="",
        address="",
        request="",
        content_type="",
        headers=(),
        body=b"",
        bytes=0,
    )


def test_only_what_a_source_asks_for_is_kept(desk: Desk) -> None:
    """For as many days as it says; of others, and of what is not the request's fault, nothing, and nobody misses it."""
    with keeper(desk) as made:
        for found in (one(), one("mill"), one("unknown"), one("bank"), one(kind="busy"), one(kind="unavailable")):
            made.offer(found)
    assert [(found.source, until - NOW) for found, until in desk.kept] == [
        ("shop", timedelta(days=2)),
        ("bank", timedelta(days=1)),
    ]
    assert desk.missed == []


def test_a_flood_is_counted_and_not_kept(desk: Desk) -> None:
    """A source has so many a minute, which come back bit by bit, whatever another source does."""
    with keeper(desk, per_minute=10) as made:
        for _ in range(1000):
            made.offer(one())
        made.offer(one("bank"))
        desk.now = 12.5
        for _ in range(1000):
            made.offer(one())
        desk.now = 100_000
        for _ in range(1000):
            made.offer(one())
    assert [found.source for found, _ in desk.kept].count("shop") == 10 + 2 + 10
    assert [found.source for found, _ in desk.kept].count("bank") == 1
    assert desk.missed == [("shop", "rate")] * (3000 - 22)


def test_rubbish_takes_nothing_from_what_a_sender_did_wrong(desk: Desk) -> None:
    """What anybody can send has a rate of its own, in either direction."""
    with keeper(desk, per_minute=10) as made:
        for _ in range(1000):
            made.offer(one())
        for _ in range(1000):
            made.offer(one(kind="unparseable"))
    kinds = [found.kind for found, _ in desk.kept]
    assert (kinds.count("unverified"), kinds.count("unparseable")) == (10, 10)


def test_a_ledger_that_stands_still_stops_nobody(desk: Desk) -> None:
    """Offering never waits: what finds the queue full is counted, what waits is written when the ledger is back."""
    desk.open.clear()
    with keeper(desk, per_minute=1000, waiting=5) as made:
        made.offer(one())
        assert desk.writing.wait(30)
        for _ in range(20):
            made.offer(one())
        assert desk.missed == [("shop", "queue")] * 15
        desk.open.set()
    assert len(desk.kept) == 6


def test_closing_writes_what_waits(desk: Desk) -> None:
    """Everything that was taken is written by the time it is closed, and nothing is taken afterwards."""
    with keeper(desk, per_minute=1000) as made:
        for _ in range(40):
            made.offer(one())
    assert sum(desk.groups) == 40
    assert max(desk.groups) <= 16
    made.offer(one())
    assert len(desk.kept) == 40


def test_a_ledger_that_fails_is_survived(desk: Desk) -> None:
    """What cannot be written is counted, and the next is written."""
    desk.broken = True
    with keeper(desk) as made:
        made.offer(one())
        wait_for(lambda: len(desk.missed) == 1, what="the failure is counted")
        assert desk.missed == [("shop", "ledger")]
        desk.broken = False
        made.offer(one())
    assert len(desk.kept) == 1


def test_offering_never_raises(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when counting fails: the sender gets the answer that it was to get."""

    def fail(source: str, why: Missed) -> None:
        raise RuntimeError

    monkeypatch.setattr(desk, "miss", fail)
    with keeper(desk, per_minute=1) as made:
        made.offer(one())
        made.offer(one())
    assert len(desk.kept) == 1


def test_what_is_over_is_forgotten_at_the_start_and_later(desk: Desk) -> None:
    """All of it, a few at a time, also when no source keeps anything any more."""
    desk.old = 5
    with keeper(desk, expire_seconds=0.01) as made:
        wait_for(lambda: desk.old == 0, what="what was over is forgotten")
        desk.old = 3
        desk.now = 1
        made.offer(one())
        wait_for(lambda: desk.old == 0, what="what came to its end later is forgotten")
