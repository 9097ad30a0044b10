"""POST /notifications/s3: what a bucket says was created goes to the intake as hints.

An authenticated notification is answered 2xx unless trying again helps: MinIO sends a refused one again for ever,
and keeps all that came after it waiting behind it.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Collection, Sequence

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from pydantic import BaseModel

from penstock.errors import PenstockError, Transient
from penstock.model import RESERVED_PREFIX, Via
from penstock.webhook.bodies import Memory, read_body
from penstock.webhook.metrics import Metrics
from penstock.webhook.notifications import parse
from penstock.webhook.ports import Intake
from penstock.webhook.problems import Refusal, try_later

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
# Hints may not take the threads that deliveries need.
_THREADS = 4

REFUSALS = (
    "bad-content-length",
    "cut-off",
    "unverified",
    "too-slow",
    "too-large",
    "busy",
    "unavailable",
    "notifications-off",
)


class Noted(BaseModel):
    """What became of a notification's records.

    `ignored` are of other buckets or penstock's own, `skipped` are no creations, `unusable` cannot be read, and
    `failed` were not taken by the intake and are left to the sweep.
    """

    seen: int
    ignored: int
    skipped: int
    unusable: int
    failed: int


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
    ) -> None:
        self._intake = intake
        self._token = token.encode()
        self._buckets = frozenset(buckets)
        self._memory = memory
        self._metrics = metrics
        self._read_seconds = read_seconds
        self._limiter = CapacityLimiter(_THREADS)

    async def take(self, request: Request) -> Noted:
        """Answer one notification. Raises Refusal of the kinds in REFUSALS."""
        outcome = "error"
        try:
            noted = await self._take(request)
        except Refusal as refusal:
            outcome = refusal.kind
            raise
        else:
            outcome = "noted"
            return noted
        finally:
            self._metrics.notification(outcome)

    async def _take(self, request: Request) -> Noted:
        self._authenticate(request)
        with self._memory.hold() as reserve:
            body = await read_body(request, limit=MAX_BYTES, seconds=self._read_seconds, reserve=reserve)
            hints = await anyio.to_thread.run_sync(parse, body, limiter=self._limiter)
            ours: dict[str, list[str]] = {}
            for bucket, key in hints.keys:
                if bucket in self._buckets and not key.startswith(RESERVED_PREFIX):
                    ours.setdefault(bucket, []).append(key)
            failed = 0
            for bucket, keys in ours.items():
                failed += await anyio.to_thread.run_sync(self._note, bucket, keys, limiter=self._limiter)
        named = sum(len(keys) for keys in ours.values())
        noted = Noted(
            seen=named - failed,
            ignored=len(hints.keys) - named,
            skipped=hints.skipped,
            unusable=hints.unusable,
            failed=failed,
        )
        for name, count in noted.model_dump().items():
            self._metrics.hints(name, count)
        return noted

    def _authenticate(self, request: Request) -> None:
        if not self._token:
            raise Refusal("notifications-off", "Set PENSTOCK_NOTIFY_TOKEN to turn them on.")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._token)
        if scheme.lower() != "bearer" or not same:
            raise Refusal("unverified", "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})

    def _note(self, bucket: str, keys: Sequence[str]) -> int:
        """Hand over hints; how many were not taken. The sweep finds what a lost hint named.

        A key that fails alone is not asked for again: the store would send it, and all behind it, for ever.
        """
        skipped: list[str] = []

        def skip(key: str, error: PenstockError) -> None:
            log.warning("the hint for %r is left to the sweep: %s", key, error)
            skipped.append(key)

        try:
            self._intake.seen(bucket, keys, Via.NOTIFICATION, skip=skip)
        except Transient as error:
            raise try_later("unavailable", "The hints are not taken; send them again.") from error
        except Exception:
            log.warning("%d hints of bucket %s failed", len(keys), bucket, exc_info=True)
            return 1 if len(keys) == 1 else sum(self._note(bucket, [key]) for key in keys)
        return len(skipped)
