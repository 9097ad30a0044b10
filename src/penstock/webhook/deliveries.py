"""Group commit: deliveries that wait at the same moment for the same dataset become durable together.

The first one does not wait. Those that come while it is in flight ride together in the next call. Belongs to one
event loop; `Intake.accept` runs in threads, at most one at a time for a dataset.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio.to_thread

from penstock.errors import LedgerUnavailable, NotMigrated, ObjectMissing, SettingsError, Transient
from penstock.model import Delivery
from penstock.webhook.ports import Intake

log = logging.getLogger(__name__)

# Wrong keys and a bucket that is gone are no fault of a delivery's.
_ALL_ALIKE = (Transient, SettingsError, ObjectMissing, NotMigrated)


class Busy(Transient):
    """Too many deliveries are waiting; send it again a little later."""


@dataclass(kw_only=True, eq=False)
class _Waiting:
    delivery: Delivery
    duplicate: asyncio.Future[bool]


@dataclass(kw_only=True, eq=False)
class _Lane:
    waiting: deque[_Waiting] = field(default_factory=deque)
    drain: asyncio.Task[None] | None = None
    # When the group in flight set out, on the loop's clock.
    began: float | None = None
    # How many rode in the last group, and when it was answered.
    last_size: int = 0
    ended: float = 0.0
    # Wakes the drain when as many wait again; None while it does not gather.
    enough: asyncio.Future[None] | None = None


class GroupCommit:
    """Takes single deliveries and accepts them in groups.

    `max_waiting` deliveries of all datasets may wait besides those in flight; a group has at most `max_group`
    deliveries and, unless one alone is larger, `max_group_bytes` of bodies. `observe` is told each group's size.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        max_waiting: int = 1000,
        max_group: int = 500,
        max_group_bytes: int = 16_000_000,
        gather_seconds: float = 0.005,
        answer_seconds: float = 25.0,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._intake = intake
        self._max_waiting = max_waiting
        self._max_group = max_group
        self._max_group_bytes = max_group_bytes
        self._gather_seconds = gather_seconds
        self._answer_seconds = answer_seconds
        self._observe = observe
        self._lanes: dict[str, _Lane] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many deliveries wait for a group."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def slowest(self, now: float) -> float:
        """For how many seconds the oldest group has been in flight; `now` is the loop's time."""
        return max((now - lane.began for lane in self._lanes.values() if lane.began is not None), default=0.0)

    async def accept(self, delivery: Delivery) -> bool:
        """Return once `delivery` is durable: True when it was seen before.

        Raises Busy when the queue is full or closed, and Transient when it could not be made durable in time; where
        its group was under way it may become so all the same, and the sender's retry is a duplicate. A caller that is
        cancelled leaves its delivery in the group.
        """
        if self._closed or self.waiting >= self._max_waiting:
            raise Busy
        lane = self._lanes.setdefault(delivery.dataset, _Lane())
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(delivery=delivery, duplicate=future)
        lane.waiting.append(waiting)
        if lane.drain is None:
            lane.drain = asyncio.create_task(self._drain(lane))
        if lane.enough is not None and len(lane.waiting) >= lane.last_size and not lane.enough.done():
            lane.enough.set_result(None)
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                # Answered in the very turn of the loop in which the time was over, or TimeoutError is the answer.
                return future.result()
            # Its caller no longer counts its body, so that it must not wait on: the sender comes again.
            with suppress(ValueError):
                lane.waiting.remove(waiting)
            raise LedgerUnavailable("the delivery did not become durable in time") from None

    async def close(self) -> None:
        """Refuse what comes from now on, and return when nothing waits or is in flight."""
        self._closed = True
        drains = [lane.drain for lane in self._lanes.values() if lane.drain is not None]
        await asyncio.gather(*drains, return_exceptions=True)

    async def _drain(self, lane: _Lane) -> None:
        try:
            while lane.waiting:
                await self._gather(lane)
                if not lane.waiting:
                    break  # they were answered meanwhile
                group = self._next_group(lane)
                self._observe(len(group))
                lane.began = asyncio.get_running_loop().time()
                await self._settle(group)
                lane.last_size, lane.ended, lane.began = len(group), asyncio.get_running_loop().time(), None
        finally:
            lane.drain = lane.began = None
            for waiting in lane.waiting:
                _fail(waiting, Busy())
            lane.waiting.clear()

    async def _gather(self, lane: _Lane) -> None:
        """Wait a moment for those that were just answered and send again; a delivery that comes alone never waits.

        Groups cost the store and the ledger the same whatever their size, so under load fewer are faster for everyone.
        """
        loop = asyncio.get_running_loop()
        left = lane.ended + self._gather_seconds - loop.time()
        if left <= 0 or len(lane.waiting) >= lane.last_size:
            return
        lane.enough = loop.create_future()
        try:
            await asyncio.wait([lane.enough], timeout=left)
        finally:
            lane.enough = None

    def _next_group(self, lane: _Lane) -> list[_Waiting]:
        group = [lane.waiting.popleft()]
        size = len(group[0].delivery.body)
        while lane.waiting and len(group) < self._max_group:
            size += len(lane.waiting[0].delivery.body)
            if size > self._max_group_bytes:
                break
            group.append(lane.waiting.popleft())
        return group

    async def _settle(self, group: Sequence[_Waiting]) -> None:
        """Accept a group and answer each of its callers, whatever happens."""
        repeats: dict[tuple[str, str], list[_Waiting]] = {}
        for waiting in group:
            repeats.setdefault((waiting.delivery.source, waiting.delivery.id), []).append(waiting)
        firsts = [same[0].delivery for same in repeats.values()]
        try:
            outcomes = await self._accept(firsts)
        except BaseException:
            for waiting in group:
                _fail(waiting, Busy())
            raise
        for same, outcome in zip(repeats.values(), outcomes, strict=True):
            for position, waiting in enumerate(same):
                if isinstance(outcome, Exception):
                    _fail(waiting, outcome)
                elif not waiting.duplicate.done():
                    waiting.duplicate.set_result(outcome or position > 0)

    async def _accept(self, deliveries: Sequence[Delivery]) -> list[bool | Exception]:
        try:
            return [*await self._call(deliveries)]
        except _ALL_ALIKE as error:
            return [error] * len(deliveries)
        except Exception as error:
            if len(deliveries) == 1:
                return [error]
            log.warning("a group of %d deliveries failed; trying each alone", len(deliveries), exc_info=True)
        outcomes: list[bool | Exception] = []
        for delivery in deliveries:
            # Once the store or ledger is away, the others would only wait for it one after the other.
            if outcomes and isinstance(outcomes[-1], _ALL_ALIKE):
                outcomes.append(outcomes[-1])
            else:
                outcomes += await self._accept([delivery])
        return outcomes

    async def _call(self, deliveries: Sequence[Delivery]) -> list[bool]:
        duplicates = await anyio.to_thread.run_sync(self._intake.accept, deliveries)
        if len(duplicates) != len(deliveries):
            raise RuntimeError(f"the intake answered {len(duplicates)} of {len(deliveries)} deliveries")
        return duplicates


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.duplicate.done():
        waiting.duplicate.set_exception(error)
