"""The edge's Prometheus metrics, in a registry of their own. Labels are declared names and closed sets only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

UNKNOWN_SOURCE = "(unknown)"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_GROUP = (1, 2, 5, 10, 25, 50, 100, 250, 500)


class Metrics:
    """`outcome` is `accepted`, `duplicate`, `error` or a problem's kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "penstock_webhook_requests", "Webhook requests", ["source", "outcome"], registry=self.registry
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
            "penstock_notification_requests", "Bucket notifications", ["outcome"], registry=self.registry
        )
        self._hints = Counter("penstock_notification_hints", "Keys they named", ["outcome"], registry=self.registry)
        # A child is looked up once: the edge counts each request, and a look-up takes a lock.
        self._answered = cache(self._requests.labels)
        self._took = cache(self._seconds.labels)
        self._waiting = Gauge("penstock_webhook_waiting", "Deliveries that wait", registry=self.registry)

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the queue's length at each scrape."""
        self._waiting.set_function(waiting)

    def hook(self, source: str, outcome: str, seconds: float) -> None:
        """One webhook request was answered. `source` is a declared name or UNKNOWN_SOURCE."""
        self._answered(source, outcome).inc()
        self._took(source).observe(seconds)

    def group(self, size: int) -> None:
        """A group of `size` deliveries went to the intake."""
        self._groups.observe(size)

    def notification(self, outcome: str) -> None:
        """One notification was answered."""
        self._notifications.labels(outcome).inc()

    def hints(self, outcome: str, count: int) -> None:
        """`count` hints of one notification were `outcome`."""
        self._hints.labels(outcome).inc(count)
