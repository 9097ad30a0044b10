"""The requests to /hooks/{source}: they become durable deliveries, are handshakes, or are refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse, Response

from penstock.errors import PenstockError, Transient, Unverified
from penstock.model import Delivery, FurtherEvent, media_type
from penstock.sources import Source
from penstock.verification import is_secret_header
from penstock.webhook import handshakes
from penstock.webhook.access import FACTS, REQUEST_ID
from penstock.webhook.bodies import Memory, read_body, read_gzip
from penstock.webhook.choice import Choice, Unparseable, parsed
from penstock.webhook.cloudevents import BATCH_MEDIA_TYPE, MEDIA_TYPE, BadCloudEvent, events_of
from penstock.webhook.deliveries import Busy, GroupCommit
from penstock.webhook.known_secrets import KnownSecrets
from penstock.webhook.metrics import UNKNOWN_SOURCE, Metrics
from penstock.webhook.problems import Refusal, try_later
from penstock.webhook.rates import Rates
from penstock.webhook.rejected import KEPT_KINDS, Rejected, make_rejected
from penstock.webhook.schemes.base import Sent
from penstock.webhook.verify import challenge, check, identify, usable

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# Larger bodies are verified and parsed in a thread, so that the loop goes on with the others.
_READ_AT_ONCE = 64 * 1024
_READERS = 2

REFUSALS = (
    "bad-content-length",
    "empty-body",
    "cut-off",
    "unparseable",
    "bad-cloudevent",
    "unverified",
    "not-local",
    "unknown-source",
    "retired",
    "too-slow",
    "too-large",
    "content-encoding",
    "content-type",
    "too-many",
    "busy",
    "unavailable",
    "secret-unset",
)
GREETING_REFUSALS = ("unverified", "not-local", "unknown-source", "wrong-method", "retired", "too-many", "secret-unset")


class Accepted(BaseModel):
    """The delivery is durable. `duplicate` is true when one of this id was accepted before."""

    delivery: str
    duplicate: bool


class AcceptedBatch(BaseModel):
    """Each delivery of the batch is durable, in the order in which they were sent."""

    deliveries: list[Accepted]


class Shaken(BaseModel):
    """The answer to a handshake; nothing was delivered."""

    handshake: str | None = None
    challenge: str | None = None


@dataclass(kw_only=True)
class _Told:
    """What is known of a request so far; `wire` is its body as it came."""

    source: Source | None = None
    wire: bytes = b""
    outcome: str = "error"
    deliveries: Sequence[str] = ()


class Hooks:
    """Takes the requests of all sources. `read_seconds` is the time a sender has for the whole body.

    `reject` is told what was refused of a source that keeps it; it neither waits nor raises.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        deliveries: GroupCommit,
        resolve_secret: Callable[[str], str],
        clock: Callable[[], datetime],
        memory: Memory,
        metrics: Metrics,
        rates: Rates,
        reject: Callable[[Rejected], None],
        read_seconds: float,
    ) -> None:
        self._sources = sources
        self._choices = {name: Choice(source) for name, source in sources.items()}
        self._reading = CapacityLimiter(_READERS)
        # Sources of which it was said that an event cannot be made.
        self._complained: set[str] = set()
        self._deliveries = deliveries
        self._clock = clock
        self._memory = memory
        self._metrics = metrics
        self._rates = rates
        self._reject = reject
        self._read_seconds = read_seconds
        self._secrets = KnownSecrets(resolve_secret, clock)

    async def take(self, request: Request, name: str) -> Response:
        """Answer a POST. Raises Refusal of the kinds in REFUSALS."""
        return await self._answered(request, name, self._take)

    async def greet(self, request: Request, name: str) -> Response:
        """Answer a GET or OPTIONS, which is a handshake or nothing. Raises Refusal."""
        return await self._answered(request, name, self._greet)

    async def _answered(
        self, request: Request, name: str, answer: Callable[[Request, Source, _Told], Awaitable[Response]]
    ) -> Response:
        started = time.perf_counter()
        told = _Told()
        try:
            told.source = self._source(name)
            return await answer(request, told.source, told)
        except Refusal as refusal:
            told.outcome = refusal.kind
            if told.source is not None and told.source.keep_rejected_days and refusal.kind in KEPT_KINDS:
                self._reject(self._rejected(request, told.source, refusal, told.wire))
            raise
        finally:
            label = told.source.name if told.source else UNKNOWN_SOURCE
            self._metrics.hook(label, told.outcome, time.perf_counter() - started)
            facts = request.scope.setdefault(FACTS, {})
            facts.update(outcome=told.outcome, deliveries=list(told.deliveries))

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise Refusal("unknown-source", "There is no source of this name.")
        return self._sources[name]

    async def _greet(self, request: Request, source: Source, told: _Told) -> Response:
        _check_open(source)
        await self._rates.from_address(source.name, _address(request))
        answer: Response | None = None
        if request.method == "OPTIONS":
            allowed = handshakes.by_options(source, request.headers)
            answer = Response(status_code=200, headers=allowed) if allowed is not None else None
        elif source.challenge:
            (secret,) = self._secrets.values(source.name, (source.challenge,), bool)
            answer = PlainTextResponse(handshakes.by_get(request.query_params.multi_items(), secret))
        if answer is None:
            raise Refusal("wrong-method", "Deliveries are sent with POST.", {"Allow": "POST"})
        told.outcome = "handshake"
        return answer

    async def _take(self, request: Request, source: Source, told: _Told) -> Response:
        _check_open(source)
        await self._rates.from_address(source.name, _address(request))
        gzipped = _check_head(request, source)
        self._secrets_of(source)
        with self._memory.hold(source.name) as reserve:
            limit = source.max_bytes
            told.wire = body = await read_body(request, limit=limit, seconds=self._read_seconds, reserve=reserve)
            sent = Sent(request.headers.raw, body)
            await self._check_sender(source, sent)
            if gzipped:
                body = await read_gzip(body, limit=limit, reserve=reserve)
                sent = Sent(request.headers.raw, body)
            # A CloudEvent in binary mode may be all in the headers.
            if not body and not source.cloudevents:
                raise Refusal("empty-body", "A delivery needs a body.")
            headers = _joined(request)
            if handshakes.may_be_in_body(source, headers):
                parsed_body = await self._work(len(body), partial(_parsed_or_none, body))
                shaken = handshakes.in_body(source, headers, parsed_body)
                if shaken is not None:
                    told.outcome = "handshake"
                    return JSONResponse(shaken)
            deliveries, batch = await self._deliveries_of(source, request, headers, sent)
            await self._rates.verified(source.name, len(deliveries))
            told.deliveries = [delivery.id for delivery in deliveries]
            accepted = await self._accept(deliveries)
        told.outcome = "duplicate" if accepted and all(one.duplicate for one in accepted) else "accepted"
        answer = AcceptedBatch(deliveries=accepted) if batch else accepted[0]
        return Response(answer.model_dump_json(), status_code=202, media_type="application/json")

    async def _check_sender(self, source: Source, sent: Sent) -> None:
        # Read again after the body: it may have taken half a minute, and a secret may have been withdrawn.
        checking = partial(check, source.verify, self._secrets_of(source), sent, self._clock())
        try:
            await self._work(len(sent.body), checking)
        except Unverified as error:
            raise _unverified(source, error) from None

    async def _deliveries_of(
        self, source: Source, request: Request, headers: Mapping[str, str], sent: Sent
    ) -> tuple[list[Delivery], bool]:
        """The deliveries that a verified request makes, and whether it is a batch of them."""
        size = len(sent.body)
        content_type = headers.get("content-type", "")
        batch = False
        if source.cloudevents:
            kind = media_type(content_type)
            batch, content_type = kind == BATCH_MEDIA_TYPE, MEDIA_TYPE
            if kind not in (BATCH_MEDIA_TYPE, MEDIA_TYPE) and source.verify.signs and not source.unsigned_attributes:
                raise Refusal("bad-cloudevent", "Send it structured: what its headers say would not be signed.")
            try:
                events = await self._work(size, partial(events_of, request.headers.raw, sent.body))
            except BadCloudEvent as error:
                raise Refusal("bad-cloudevent", f"{error}.") from None
            found = [(event.id, event.body) for event in events]
        else:
            try:
                named = await self._work(size, partial(identify, source.verify, sent, dedup=source.dedup))
            except Unverified as error:
                raise _unverified(source, error) from None
            found = [(named, sent.body)]
        now, kept = self._clock(), _kept(source, headers)
        return [
            Delivery(
                id=delivery,
                source=source.name,
                dataset=dataset,
                received_at=now,
                content_type=content_type,
                headers=kept,
                body=content,
                request=request.scope.get(REQUEST_ID, ""),
                events=further,
            )
            for delivery, content in found
            for dataset, further in [await self._chosen(source, headers, delivery, content)]
        ], batch

    async def _chosen(
        self, source: Source, headers: Mapping[str, str], delivery: str, content: bytes
    ) -> tuple[str, tuple[FurtherEvent, ...]]:
        """The dataset that a delivery feeds, and its further events. Raises Refusal `unparseable`."""
        choice = self._choices[source.name]
        seen = _shown(source, headers) if choice.looks else {}
        # Where nothing looks at the body, its size does not matter.
        size = len(content) if choice.needs_body else 0
        try:
            dataset, further = await self._work(size, partial(choice.decide, content, seen, delivery=delivery))
        except Unparseable:
            raise Refusal("unparseable", "The body is no JSON.") from None
        if further.dropped and source.name not in self._complained:
            self._complained.add(source.name)
            log.warning(
                "%s: %d further events of delivery %r cannot be made: something in them is undefined, too long or "
                "not to be sent. Others like it are not told of again",
                source.name,
                further.dropped,
                delivery,
            )
        return dataset, further.events

    async def _accept(self, deliveries: Sequence[Delivery]) -> list[Accepted]:
        """Accept each; what was accepted of a batch that then fails is a duplicate when it comes again."""
        outcomes: list[bool | BaseException]
        if len(deliveries) == 1:
            # Nearly always, and a task for it would cost as much as all else here.
            try:
                outcomes = [await self._deliveries.accept(deliveries[0])]
            except Exception as error:
                outcomes = [error]
        else:
            outcomes = await asyncio.gather(*map(self._deliveries.accept, deliveries), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Busy):
                raise try_later("busy", "Too many deliveries are waiting.")
            if isinstance(outcome, Exception):
                if not isinstance(outcome, Transient):
                    # Somebody has to do something, until when the sender keeps its deliveries.
                    trace = None if isinstance(outcome, PenstockError) else outcome
                    log.error("deliveries cannot be accepted: %s", outcome, exc_info=trace)
                raise try_later("unavailable", "The delivery is not accepted; send it again.") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        return [
            Accepted(delivery=delivery.id, duplicate=bool(outcome))
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
        ]

    async def _work(self, size: int, work: Callable[[], _Result]) -> _Result:
        """Do what reads a body of so many bytes.

        Of large ones two at a time, in threads: what they are parsed into takes many times as much.
        """
        if size <= _READ_AT_ONCE:
            return work()
        return await anyio.to_thread.run_sync(work, limiter=self._reading)

    def _rejected(self, request: Request, source: Source, refusal: Refusal, wire: bytes) -> Rejected:
        return make_rejected(
            source,
            at=self._clock(),
            kind=refusal.kind,
            detail=refusal.why or refusal.detail,
            address=_address(request),
            request=request.scope.get(REQUEST_ID, ""),
            headers=request.headers.raw,
            body=wire,
        )

    def _secrets_of(self, source: Source) -> Sequence[str]:
        return self._secrets.values(source.name, source.verify.secrets, lambda value: usable(source.verify, value))


def _check_open(source: Source) -> None:
    if source.retired:
        raise Refusal("retired", "This source is retired: stop sending.")


def _check_head(request: Request, source: Source) -> bool:
    """Refuse what the head alone tells; returns whether the body is gzipped."""
    if source.content_types and media_type(request.headers.get("content-type", "")) not in source.content_types:
        raise Refusal("content-type", f"Send {' or '.join(source.content_types)}.")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise Refusal("content-encoding", "Send the body as it is, or with Content-Encoding: gzip.")
    return encoding == "gzip"


def _unverified(source: Source, error: Unverified) -> Refusal:
    return Refusal(
        "unverified",
        "The request is not signed as this source says.",
        {"WWW-Authenticate": challenge(source.verify)},
        why=error.why,
    )


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _shown(source: Source, headers: Mapping[str, str]) -> dict[str, str]:
    """What templates see: what verifies a request does not belong into an event."""
    return {name: value for name, value in headers.items() if not is_secret_header(name, source.verify)}


def _kept(source: Source, headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): headers[name.lower()] for name in source.headers if name.lower() in headers}


def _parsed_or_none(body: bytes) -> Any:
    try:
        return parsed(body)
    except Unparseable:
        return None


def _joined(request: Request) -> dict[str, str]:
    """Headers by lower-case name. One sent twice is joined."""
    found: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
