"""POST /notifications/s3: what a bucket says was put or removed goes to the intake as hints.

An authenticated notification is answered 2xx unless trying again helps: MinIO sends a refused one again for ever,
and keeps all that came after it waiting behind it. What cannot be used goes to quarantine instead.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from pydantic import BaseModel
from starlette.types import Message, Receive

from penstock.errors import PenstockError, Transient
from penstock.model import RESERVED_PREFIX, Via
from penstock.notifications import EXCERPT_BYTES, Hints, Unusable, parse
from penstock.webhook.authorization import is_authorized
from penstock.webhook.bodies import Memory, read_body
from penstock.webhook.metrics import Metrics
from penstock.webhook.ports import Intake
from penstock.webhook.problems import KINDS, Refusal, discard, try_later

log = logging.getLogger(__name__)

_USER = b"penstock"
MAX_BYTES = 1_000_000
# What each process keeps of what cannot be used; beyond that it is counted, so that a flood does not fill the ledger.
KEPT_PER_MINUTE = 10
# How often the intake is asked again for parts of one notification that it fails on.
MOST_FAILURES = 50
# Hints may not take the threads that deliveries need.
_THREADS = 4
_MINUTE = 60.0

REFUSALS = ("unverified", "not-local", "busy", "unavailable", "notifications-off")


class Noted(BaseModel):
    """What became of a notification's records.

    `seen` keys were put and `removed` ones deleted, `ignored` are of other buckets or penstock's own, `skipped` are
    neither, `unusable` cannot be read, and `failed` were not taken by the intake and are left to the sweep.
    """

    seen: int
    removed: int
    ignored: int
    skipped: int
    unusable: int
    failed: int


class _Take(Protocol):
    def __call__(
        self, bucket: str, keys: Sequence[str], via: Via, *, skip: Callable[[str, PenstockError], None]
    ) -> object: ...


class Notifications:
    """Takes notifications with the bearer `token`; an empty one turns them off."""

    def __init__(
        self,
        *,
        intake: Intake,
        token: str,
        buckets: Collection[str],
        memory: Memory,
        metrics: Metrics,
        read_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._token = token.encode()
        self._basic = base64.b64encode(_USER + b":" + self._token)
        self._buckets = frozenset(buckets)
        self._memory = memory
        self._metrics = metrics
        self._read_seconds = read_seconds
        self._limiter = CapacityLimiter(_THREADS)
        self._keeping = _Allowance(KEPT_PER_MINUTE, monotonic)

    async def take(self, request: Request) -> Noted:
        """Answer one notification. Raises Refusal of the kinds in REFUSALS."""
        outcome = "error"
        try:
            self._authenticate(request)
            outcome, hints = await self._read(request)
            return await self._heed(hints)
        except Refusal as refusal:
            outcome = refusal.kind
            raise
        finally:
            self._metrics.notification(outcome)

    def _authenticate(self, request: Request) -> None:
        if not self._token:
            raise Refusal("notifications-off", "Set PENSTOCK_NOTIFY_TOKEN to turn them on.")
        given = request.headers.get("authorization", "").encode("latin-1")
        # Amazon SNS can send no bearer token, but the user and password of its endpoint's URL.
        if not is_authorized(given, "bearer", self._token) and not is_authorized(given, "basic", self._basic):
            raise Refusal("unverified", "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})

    async def _read(self, request: Request) -> tuple[str, Hints]:
        """The outcome for the metrics, and what the body says; of one that cannot be read, that."""
        begun = bytearray()
        watched = Request(request.scope, _watching(request.receive, begun))
        with self._memory.hold("(notifications)") as reserve:
            try:
                body = await read_body(watched, limit=MAX_BYTES, seconds=self._read_seconds, reserve=reserve)
            except Refusal as refusal:
                if KINDS[refusal.kind][0] == 503:
                    raise
                await discard(watched.receive)
                return refusal.kind, _unreadable(refusal, bytes(begun))
            return "noted", await anyio.to_thread.run_sync(parse, body, limiter=self._limiter)

    async def _heed(self, hints: Hints) -> Noted:
        put, removed = self._ours(hints.created), self._ours(hints.removed)
        failed_puts = await self._hand_over(self._intake.seen, put)
        failed_removals = await self._hand_over(self._intake.removed, removed)
        await self._keep(hints)
        named_puts, named_removals = (sum(len(keys) for keys in named.values()) for named in (put, removed))
        noted = Noted(
            seen=named_puts - failed_puts,
            removed=named_removals - failed_removals,
            ignored=len(hints.changes) - named_puts - named_removals,
            skipped=hints.skipped,
            unusable=hints.unusable,
            failed=failed_puts + failed_removals,
        )
        for name, count in noted.model_dump().items():
            self._metrics.hints(name, count)
        return noted

    def _ours(self, names: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
        ours: dict[str, list[str]] = {}
        for bucket, key in names:
            if bucket in self._buckets and not key.startswith(RESERVED_PREFIX):
                ours.setdefault(bucket, []).append(key)
        return ours

    async def _hand_over(self, take: _Take, named: dict[str, list[str]]) -> int:
        """Hand over hints; how many were not taken. The sweep finds what a lost hint named."""
        failed = 0
        for bucket, keys in named.items():
            failed += await anyio.to_thread.run_sync(partial(_note, take, bucket, keys), limiter=self._limiter)
        return failed

    async def _keep(self, hints: Hints) -> None:
        """Put what cannot be used into quarantine, as far as this minute's allowance goes."""
        parts = hints.parts[: self._keeping.left()]
        if len(parts) < len(hints.parts):
            self._metrics.hints("unkept", len(hints.parts) - len(parts))
            if self._keeping.first_beyond():
                log.warning("more than %d notifications in a minute cannot be used: they are counted", KEPT_PER_MINUTE)
        if not parts:
            return
        try:
            kept = await anyio.to_thread.run_sync(self._intake.keep_unusable, parts, limiter=self._limiter)
        except Transient as error:
            raise try_later("unavailable", "The notification is not taken; send it again.") from error
        except Exception:
            log.warning("a notification that cannot be used could not be kept", exc_info=True)
            return
        self._keeping.used(kept)
        if kept:
            log.warning("a notification cannot be used, see penstock quarantine ls: %s", parts[0].reason)


class _Allowance:
    """So many a minute."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._monotonic = monotonic
        self._began = monotonic()
        self._used = 0
        self._told = False

    def left(self) -> int:
        """How many more this minute."""
        now = self._monotonic()
        if now - self._began >= _MINUTE:
            self._began, self._used, self._told = now, 0, False
        return max(0, self._most - self._used)

    def used(self, count: int) -> None:
        """So many of them were used."""
        self._used += count

    def first_beyond(self) -> bool:
        """Whether this minute's allowance is exceeded for the first time."""
        first, self._told = not self._told, True
        return first


def _watching(receive: Receive, begun: bytearray) -> Receive:
    """`receive`, with the beginning of the body noted in `begun`."""

    async def watch() -> Message:
        message = await receive()
        begun.extend(message.get("body", b"")[: EXCERPT_BYTES - len(begun)])
        return message

    return watch


def _unreadable(refusal: Refusal, begun: bytes) -> Hints:
    if refusal.kind == "cut-off":  # the sender had no answer, and sends it again
        return Hints(unusable=1)
    reason = f"the body of a notification could not be read: {refusal.detail} A sweep finds what it named"
    return Hints(unusable=1, parts=[Unusable(reason=reason, part=refusal.kind.encode() + b" " + begun)])


def _note(take: _Take, bucket: str, keys: Sequence[str]) -> int:
    """How many keys the intake did not take.

    A key that fails alone is not asked for again: the store would send it, and all behind it, for ever. It is looked
    for by halves, and not for ever: what is not tried after `MOST_FAILURES` is left to the sweep.
    """
    parts, lost, failures = [keys], 0, 0
    while parts:
        part = parts.pop()
        if failures >= MOST_FAILURES:
            lost += len(part)
            continue
        skipped: dict[str, PenstockError] = {}
        try:
            take(bucket, part, Via.NOTIFICATION, skip=skipped.__setitem__)
        except Transient as error:
            raise try_later("unavailable", "The hints are not taken; send them again.") from error
        except Exception:
            failures += 1
            if failures == 1:
                log.warning("%d hints of bucket %s failed", len(part), bucket, exc_info=True)
            half = len(part) // 2
            if half:
                parts += [part[half:], part[:half]]
            else:
                lost += 1
        else:
            lost += len(skipped)
            for key, why in list(skipped.items())[:1]:
                log.warning("%d hints are left to the sweep, the first for %r: %s", len(skipped), key, why)
    if failures >= MOST_FAILURES:
        log.warning("%d hints of bucket %s are left to the sweep", lost, bucket)
    return lost
