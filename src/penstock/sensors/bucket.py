"""The bucket sensor: the store's listen API, reconnected for ever. What it misses, the sweep finds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from penstock.errors import CannotListen, Transient
from penstock.landing import Landing
from penstock.model import Via
from penstock.objects import ObjectStore

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0


class BucketSensor:
    """Listens to one bucket. `sweep_soon` is called after every connect, for what came while nobody listened."""

    def __init__(self, bucket: str, *, store: ObjectStore, landing: Landing, sweep_soon: Callable[[], None]) -> None:
        self._bucket = bucket
        self._store = store
        self._landing = landing
        self._sweep_soon = sweep_soon

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop` is set. Raises CannotListen at once when the store has no such thing."""
        pause = 0.5
        while not stop.is_set():
            self._sweep_soon()
            try:
                for key in self._store.listen(self._bucket, stop=stop):
                    pause = 0.5
                    self._landing.seen(self._bucket, [key], Via.BUCKET)
            except CannotListen:
                raise
            except Transient as error:
                log.warning("listening to %s ended: %s; again in %.1f s", self._bucket, error, pause)
            stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
