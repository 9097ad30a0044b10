"""An in-memory intake for tests of the webhook edge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from penstock.errors import PenstockError
from penstock.model import Delivery, Via
from penstock.notifications import Unusable


class MemoryIntake:
    """Keeps deliveries in memory by source and id.

    `accept_calls`, `seen_calls` and `removed_calls` hold what came with each call that succeeded or failed, `unusable`
    what was kept, by its digest. `failure` is raised by every method while set; `refuse` may raise for a batch, and
    `skip_keys` are passed over with their errors. While `gate` is cleared, `accept` waits before it works.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.refuse: Callable[[Sequence[Delivery]], None] = lambda deliveries: None
        self.refuse_keys: Callable[[Sequence[str]], None] = lambda keys: None
        self.skip_keys: dict[str, PenstockError] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.accept_calls: list[list[Delivery]] = []
        self.seen_calls: list[tuple[str, list[str], Via]] = []
        self.removed_calls: list[tuple[str, list[str], Via]] = []
        self.unusable: dict[str, Unusable] = {}
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], Delivery] = {}

    @property
    def deliveries(self) -> list[Delivery]:
        """What was made durable, in order."""
        with self._lock:
            return list(self._kept.values())

    def accept(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """See `penstock.webhook.ports.Intake.accept`."""
        if len({delivery.dataset for delivery in deliveries}) != 1:
            raise ValueError("the deliveries of one call are of one dataset")
        with self._lock:
            self.accept_calls.append(list(deliveries))
        if not self.gate.wait(timeout=30):
            raise TimeoutError("the test left the gate shut")
        self._fail()
        self.refuse(deliveries)
        known = []
        with self._lock:
            for delivery in deliveries:
                key = (delivery.source, delivery.id)
                known.append(key in self._kept)
                self._kept.setdefault(key, delivery)
        return known

    def seen(self, bucket: str, keys: Sequence[str], via: Via, *, skip: Callable[[str, PenstockError], None]) -> None:
        """See `penstock.webhook.ports.Intake.seen`."""
        with self._lock:
            self.seen_calls.append((bucket, list(keys), via))
        self._fail()
        self.refuse_keys(keys)
        for key in keys:
            if key in self.skip_keys:
                skip(key, self.skip_keys[key])

    def removed(
        self, bucket: str, keys: Sequence[str], via: Via, *, skip: Callable[[str, PenstockError], None]
    ) -> None:
        """See `penstock.webhook.ports.Intake.removed`."""
        with self._lock:
            self.removed_calls.append((bucket, list(keys), via))
        self._fail()
        self.refuse_keys(keys)
        for key in keys:
            if key in self.skip_keys:
                skip(key, self.skip_keys[key])

    def keep_unusable(self, parts: Sequence[Unusable]) -> int:
        """See `penstock.webhook.ports.Intake.keep_unusable`."""
        self._fail()
        with self._lock:
            before = len(self.unusable)
            self.unusable |= {part.digest: part for part in parts if part.digest not in self.unusable}
            return len(self.unusable) - before

    def check(self) -> None:
        """See `penstock.webhook.ports.Intake.check`."""
        self._fail()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
