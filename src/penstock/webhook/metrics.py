"""The edge's Prometheus metrics, in a registry of their own. Labels are declared names and closed sets only.

Several workers keep theirs in files of one folder, which any of them adds up for a scrape. prometheus_client does so
in the folder that PROMETHEUS_MULTIPROC_DIR names; `cli.workers` sets it for the processes it starts. The files are
named by the workers' numbers: one that is started again goes on with its counts, and adds no files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

UNKNOWN_SOURCE = "(unknown)"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_GROUP = (1, 2, 5, 10, 25, 50, 100, 250, 500)


class Metrics:
    """`shared` is the folder of several workers, of whom no two that live have the same `number`."""

    def __init__(self, shared: Path | None = None, number: int = 0) -> None:
        if shared is not None:
            values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
        self._shared = shared
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "penstock_webhook_requests",
            "Webhook requests; outcome is accepted, duplicate, handshake, error or a problem's kind",
            ["source", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "penstock_webhook_seconds",
            "Time from head to answer",
            ["source"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._groups = Histogram(
            "penstock_webhook_group_deliveries",
            "Deliveries accepted together",
            buckets=_GROUP,
            registry=self.registry,
        )
        self._notifications = Counter(
            "penstock_notification_requests",
            "Bucket notifications; outcome is noted, error or a problem's kind",
            ["outcome"],
            registry=self.registry,
        )
        self._hints = Counter(
            "penstock_notification_hints",
            "Keys they named; outcome is seen, removed, ignored, skipped, unusable, failed or unkept",
            ["outcome"],
            registry=self.registry,
        )
        self._missed = Counter(
            "penstock_rejected_missed",
            "Refused requests that were not kept; why is rate, queue or ledger",
            ["source", "why"],
            registry=self.registry,
        )
        self._guarded = Counter(
            "penstock_guard_refusals",
            "Requests that came from where they may not; outcome is a problem's kind",
            ["area", "outcome"],
            registry=self.registry,
        )
        # A child is looked up once: the edge counts each request, and a look-up takes a lock.
        self._answered = cache(self._requests.labels)
        self._took = cache(self._seconds.labels)
        self._waiting = Gauge(
            "penstock_webhook_waiting", "Deliveries that wait", registry=self.registry, multiprocess_mode="livesum"
        )
        self._count_waiting: Callable[[], int] = lambda: 0

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the queue's length at each scrape, and at each `tell_waiting`."""
        self._count_waiting = waiting
        if self._shared is None:
            self._waiting.set_function(waiting)

    def tell_waiting(self) -> None:
        """Let the other workers know how many deliveries wait here; a scrape asks only the one that it reaches."""
        if self._shared is not None:
            self._waiting.set(self._count_waiting())

    def text(self) -> bytes:
        """The metrics as Prometheus reads them, of all workers."""
        if self._shared is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def hook(self, source: str, outcome: str, seconds: float) -> None:
        """One webhook request was answered. `source` is a declared name or UNKNOWN_SOURCE."""
        self._answered(source, outcome).inc()
        self._took(source).observe(seconds)

    def rejected_missed(self, source: str, why: str) -> None:
        """A refused request was not kept, for one of the reasons of `rejected.Missed`. `source` is a declared name."""
        self._missed.labels(source, why).inc()

    def guarded(self, area: str, outcome: str) -> None:
        """The guard refused a request for one of its areas, as a problem's kind."""
        self._guarded.labels(area, outcome).inc()

    def group(self, size: int) -> None:
        """A group of `size` deliveries went to the intake."""
        self._groups.observe(size)

    def notification(self, outcome: str) -> None:
        """One notification was answered."""
        self._notifications.labels(outcome).inc()

    def hints(self, outcome: str, count: int) -> None:
        """`count` hints of one notification were `outcome`."""
        self._hints.labels(outcome).inc(count)
