"""What a source refused, kept with the reason where it asks for that: made without secrets, written by a thread.

Whoever can reach the edge decides how much is refused. So there are bounds in numbers: of a source `PER_MINUTE`
requests in each process and `ledger.rejections.MOST_OF_SOURCE` altogether, of each `BODY_BYTES` of the body and
`HEADER_CHARACTERS` of the headers. What is not verified has both bounds for itself, so that nobody's rubbish takes the
place of what a sender did wrong; that is 240 MB a source at most. What is beyond them is counted and not kept.

A body is kept as it came, which may hold what its sender would keep secret: a source that does not say
`keep_rejected_days` keeps nothing.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

from penstock.ledger.rejections import UNVERIFIED, Rejected
from penstock.sources import Source
from penstock.verification import is_secret_header
from penstock.webhook.verify import sender_headers

__all__ = ["KEPT_KINDS", "REDACTED", "Keeper", "Missed", "Rejected", "make_rejected"]

log = logging.getLogger(__name__)

# Where the request is to blame. Not what the edge could not take: its sender comes again with it.
KEPT_KINDS = frozenset(
    {
        "bad-cloudevent",
        "bad-content-length",
        "content-encoding",
        "content-type",
        "empty-body",
        "too-large",
        "unparseable",
        UNVERIFIED,
    }
)
REDACTED = "(redacted)"

PER_MINUTE = 10
BODY_BYTES = 64_000
HEADER_CHARACTERS = 8000
_VALUE_CHARACTERS = 500
_DETAIL_CHARACTERS = 1000
_NAME_CHARACTERS = 200
_WAITING = 64
_TOGETHER = 16
_EXPIRE_SECONDS = 3600.0
_CLOSE_SECONDS = 5.0

# Their values tell what came, and are nobody's secret.
_PLAIN = frozenset({"content-type", "content-length", "content-encoding", "user-agent", "date"})
_LENGTH = re.compile(r"[0-9]{1,15}")

Missed = Literal["rate", "queue", "ledger"]


def make_rejected(
    source: Source,
    *,
    at: datetime,
    kind: str,
    detail: str,
    address: str,
    request: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    size: int | None = None,
) -> Rejected:
    """What is kept of a refused request; `body` is what was read of it, `size` how long it is, or what its head says.

    Every header's name is kept, but only such values as can be no secret: what the content is, who sends, the id and
    the time of the source's scheme, and what the source keeps with its deliveries.
    """
    plain = _plain_headers(source)
    kept: list[tuple[str, str]] = []
    content_type = ""
    left = HEADER_CHARACTERS
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")[:_VALUE_CHARACTERS]
        shown = (name[:_NAME_CHARACTERS], value if name in plain else REDACTED)
        left -= sum(map(len, shown))
        if left >= 0:
            kept.append(shown)
        if name == "content-type":
            content_type = value
        if name == "content-length" and size is None and _LENGTH.fullmatch(value):
            size = int(value)
    return Rejected(
        source=source.name,
        at=at,
        kind=kind,
        detail=detail[:_DETAIL_CHARACTERS],
        address=address[:_NAME_CHARACTERS],
        request=request[:_NAME_CHARACTERS],
        content_type=content_type,
        headers=tuple(kept),
        body=bytes(body[:BODY_BYTES]),
        bytes=max(len(body), size or 0),
    )


def _plain_headers(source: Source) -> frozenset[str]:
    verification = source.verify
    names = {name.lower() for name in source.headers}
    names.update(name.lower() for name in sender_headers(verification) if _is_id_or_time(name.lower()))
    if verification.hmac is not None:
        names.update((verification.hmac.id_header.lower(), verification.hmac.timestamp_header.lower()))
    if source.dedup is not None:
        names.add(source.dedup.header.lower())
    return frozenset(name for name in names | _PLAIN if name and not is_secret_header(name, verification))


def _is_id_or_time(name: str) -> bool:
    return name.endswith(("-id", "-delivery", "-timestamp", "-date"))


class Keeper:
    """Takes what was refused and writes it to the ledger, behind the answers' back.

    `days` are the days of each source that keeps any; `keep` writes some, each until its moment, and `expire` forgets a
    bounded number of those that are over and tells how many. `missed` is told of each that was not kept, and why.
    """

    def __init__(
        self,
        *,
        days: Mapping[str, float],
        keep: Callable[[Sequence[tuple[Rejected, datetime]]], object],
        expire: Callable[[], int],
        missed: Callable[[str, Missed], None] = lambda source, why: None,
        per_minute: int = PER_MINUTE,
        waiting: int = _WAITING,
        expire_seconds: float = _EXPIRE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._days = {source: timedelta(days=found) for source, found in days.items() if found > 0}
        self._keep = keep
        self._expire = expire
        self._missed = missed
        self._per_minute = per_minute
        self._expire_seconds = expire_seconds
        self._monotonic = monotonic
        # By source, and whether its sender was verified.
        self._left = {
            (source, verified): (float(per_minute), monotonic()) for source in self._days for verified in (True, False)
        }
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Rejected | None] = queue.Queue(maxsize=waiting)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, rejected: Rejected) -> None:
        """Have it kept if its source asks for that and there is room. Never waits for anything, and never raises."""
        try:
            if rejected.source not in self._days or self._stopped.is_set() or rejected.kind not in KEPT_KINDS:
                return
            if not self._may(rejected.source, rejected.kind != UNVERIFIED):
                self._missed(rejected.source, "rate")
                return
            try:
                self._waiting.put_nowait(rejected)
            except queue.Full:
                self._missed(rejected.source, "queue")
        except Exception:
            log.exception("what %s refused is not kept", rejected.source)

    def start(self) -> None:
        """Write in a thread, which also forgets what is over, of sources that are no longer declared too."""
        self._thread = threading.Thread(target=self._run, name="rejections", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take nothing more and write what waits, for some seconds at most."""
        self._stopped.set()
        with suppress(queue.Full):  # the thread looks at `_stopped` when it has written what waits
            self._waiting.put_nowait(None)
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _may(self, source: str, verified: bool) -> bool:
        """Whether the source has one of its minute's left, which comes back bit by bit."""
        part = source, verified
        with self._lock:
            left, then = self._left[part]
            now = self._monotonic()
            left = min(float(self._per_minute), left + (now - then) * self._per_minute / 60)
            allowed = left >= 1
            self._left[part] = (left - allowed, now)
            return allowed

    def _run(self) -> None:
        expire_at = self._monotonic()
        while True:
            if self._monotonic() >= expire_at:
                self._forget()
                expire_at = self._monotonic() + self._expire_seconds
            batch = self._next(max(0.0, expire_at - self._monotonic()))
            if batch:
                self._write(batch)
            if self._stopped.is_set() and self._waiting.empty():
                return

    def _next(self, seconds: float) -> list[Rejected]:
        found: list[Rejected] = []
        try:
            first = self._waiting.get(timeout=seconds)
            while first is not None:
                found.append(first)
                if len(found) == _TOGETHER:
                    break
                first = self._waiting.get_nowait()
        except queue.Empty:
            pass
        return found

    def _write(self, batch: Sequence[Rejected]) -> None:
        try:
            self._keep([(rejected, rejected.at + self._days[rejected.source]) for rejected in batch])
        except Exception as error:  # whatever it is, the edge goes on answering
            log.warning("%d refused requests are not kept: %s", len(batch), error)
            for rejected in batch:
                self._missed(rejected.source, "ledger")

    def _forget(self) -> None:
        try:
            while not self._stopped.is_set() and self._expire():
                pass
        except Exception as error:
            log.warning("refused requests whose time is over are not forgotten yet: %s", error)
