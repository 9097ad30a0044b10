"""POST /hooks/{source}: from a request to a durable delivery, or to a refusal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fastapi import Request
from pydantic import BaseModel

from penstock.errors import Transient, Unverified
from penstock.model import Delivery
from penstock.sources import Source
from penstock.webhook.bodies import Memory, read_body
from penstock.webhook.deliveries import Busy, GroupCommit
from penstock.webhook.metrics import UNKNOWN_SOURCE, Metrics
from penstock.webhook.problems import Refusal, try_later
from penstock.webhook.verify import challenge, usable, verify

# A secret that was just set or rotated is in force after this time; until then files are not read again.
_SECRETS_FRESH = timedelta(seconds=1)

REFUSALS = (
    "bad-content-length",
    "empty-body",
    "cut-off",
    "unverified",
    "unknown-source",
    "too-slow",
    "too-large",
    "content-encoding",
    "busy",
    "unavailable",
    "secret-unset",
)


class Accepted(BaseModel):
    """The delivery is durable. `duplicate` is true when one of this id was accepted before."""

    delivery: str
    duplicate: bool


@dataclass(frozen=True, kw_only=True)
class _Secrets:
    """A source's secrets as they were at `read_at`; `problem` says why nothing can be verified with them."""

    values: Sequence[str] = field(repr=False)
    problem: str | None
    read_at: datetime


class Hooks:
    """Takes the requests of all sources. `read_seconds` is the time a sender has for the whole body."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        deliveries: GroupCommit,
        resolve_secret: Callable[[str], str],
        clock: Callable[[], datetime],
        memory: Memory,
        metrics: Metrics,
        read_seconds: float,
    ) -> None:
        self._sources = sources
        self._deliveries = deliveries
        self._resolve_secret = resolve_secret
        self._clock = clock
        self._memory = memory
        self._metrics = metrics
        self._read_seconds = read_seconds
        self._secrets: dict[str, _Secrets] = {}

    async def take(self, request: Request, name: str) -> Accepted:
        """Answer one request. Raises Refusal of the kinds in REFUSALS."""
        started = time.perf_counter()
        outcome = "error"
        try:
            accepted = await self._take(request, self._source(name))
        except Refusal as refusal:
            outcome = refusal.kind
            raise
        else:
            outcome = "duplicate" if accepted.duplicate else "accepted"
            return accepted
        finally:
            label = name if name in self._sources else UNKNOWN_SOURCE
            self._metrics.hook(label, outcome, time.perf_counter() - started)

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise Refusal("unknown-source", "There is no source of this name.")
        return self._sources[name]

    async def _take(self, request: Request, source: Source) -> Accepted:
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise Refusal("content-encoding", "Send the body as it is, without Content-Encoding.")
        self._secrets_of(source)
        with self._memory.hold() as reserve:
            body = await read_body(request, limit=source.max_bytes, seconds=self._read_seconds, reserve=reserve)
            if not body:
                raise Refusal("empty-body", "A delivery needs a body.")
            delivery = self._verified(source, request, body)
            try:
                duplicate = await self._deliveries.accept(delivery)
            except Busy:
                raise try_later("busy", "Too many deliveries are waiting.") from None
            except Transient as error:
                raise try_later("unavailable", "The delivery is not accepted; send it again.") from error
        return Accepted(delivery=delivery.id, duplicate=duplicate)

    def _verified(self, source: Source, request: Request, body: bytes) -> Delivery:
        now, headers = self._clock(), _joined(request)
        try:
            # Read again after the body: it may have taken half a minute, and a secret may have been withdrawn.
            secrets = self._secrets_of(source)
            found = verify(source.verify, secrets, request.headers.raw, body, now, dedup=source.dedup)
        except Unverified:
            raise Refusal(
                "unverified",
                "The request is not signed as this source says.",
                {"WWW-Authenticate": challenge(source.verify)},
            ) from None
        return Delivery(
            id=found,
            source=source.name,
            dataset=source.datasets[0],  # chosen per delivery in the next step
            received_at=now,
            content_type=headers.get("content-type", ""),
            headers={name.lower(): headers[name.lower()] for name in source.headers if name.lower() in headers},
            body=body,
        )

    def _secrets_of(self, source: Source) -> Sequence[str]:
        """The values of the source's secrets. One that is not set refuses the source: nothing may pass by mistake."""
        now = self._clock()
        known = self._secrets.get(source.name)
        if known is None or abs(now - known.read_at) > _SECRETS_FRESH:
            known = self._secrets[source.name] = self._read_secrets(source, now)
        if known.problem is not None:
            raise try_later("secret-unset", known.problem)
        return known.values

    def _read_secrets(self, source: Source, now: datetime) -> _Secrets:
        values = [self._resolve_secret(name) for name in source.verify.secrets]
        for name, value in zip(source.verify.secrets, values, strict=True):
            if not usable(source.verify, value):
                state = "is set, but is no secret of this scheme" if value else "is not set"
                return _Secrets(values=(), problem=f"The secret {name} {state}.", read_at=now)
        return _Secrets(values=values, problem=None, read_at=now)


def _joined(request: Request) -> dict[str, str]:
    """Headers by lower-case name. One sent twice is joined."""
    found: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
