"""Group commit: who rides together, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.errors import LedgerUnavailable, StoreUnavailable, Terminal, Transient
from penstock.model import Delivery
from penstock.testing.intake import MemoryIntake
from penstock.webhook.deliveries import Busy, GroupCommit


def delivery(id: str, *, dataset: str = "events", source: str = "shop", body: bytes = b"{}") -> Delivery:
    return Delivery(
        id=id,
        source=source,
        dataset=dataset,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        content_type="application/json",
        headers={},
        body=body,
    )


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is another thread's, and has no event
            await asyncio.sleep(0.005)


async def behind_one(
    intake: MemoryIntake, group: GroupCommit, deliveries: Sequence[Delivery]
) -> list[asyncio.Task[bool]]:
    """Start one delivery that stays in flight until the gate opens, then the given ones behind it."""
    intake.gate.clear()
    first = asyncio.create_task(group.accept(delivery("first")))
    await until(lambda: intake.accept_calls)
    waiting = [asyncio.create_task(group.accept(one)) for one in deliveries]
    await until(lambda: group.waiting == len(deliveries))
    return [first, *waiting]


def ids(calls: Sequence[Sequence[Delivery]]) -> list[list[str]]:
    return [[one.id for one in call] for call in calls]


async def _rides_together() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake)
    tasks = await behind_one(intake, group, [delivery(str(n)) for n in range(5)])
    intake.gate.set()
    assert await asyncio.gather(*tasks) == [False] * 6
    assert ids(intake.accept_calls) == [["first"], ["0", "1", "2", "3", "4"]]


def test_the_first_goes_at_once_and_the_others_ride_together() -> None:
    """What arrives while one call is in flight rides in the next one."""
    asyncio.run(_rides_together())


async def _gathers() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake, gather_seconds=30)
    async with asyncio.timeout(10):
        tasks = await behind_one(intake, group, [delivery(str(n)) for n in range(3)])
        intake.gate.set()
        await asyncio.gather(*tasks)
        early = asyncio.create_task(group.accept(delivery("3")))
        await asyncio.sleep(0)
        late = [asyncio.create_task(group.accept(delivery(str(n)))) for n in (4, 5)]
        await asyncio.gather(early, *late)
    assert ids(intake.accept_calls) == [["first"], ["0", "1", "2"], ["3", "4", "5"]]


def test_a_group_waits_a_moment_for_those_that_were_just_answered() -> None:
    """After a group of three the next sets out when three wait again."""
    asyncio.run(_gathers())


async def _alone() -> None:
    group = GroupCommit(MemoryIntake(), gather_seconds=30)
    async with asyncio.timeout(10):
        for n in range(3):
            await group.accept(delivery(str(n)))


def test_a_delivery_that_comes_alone_does_not_wait() -> None:
    """Where each comes after the answer to the one before, none waits for another."""
    asyncio.run(_alone())


async def _gathers_not_for_ever() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake, gather_seconds=0.02)
    tasks = await behind_one(intake, group, [delivery("a"), delivery("b")])
    intake.gate.set()
    await asyncio.gather(*tasks)
    async with asyncio.timeout(10):
        assert await group.accept(delivery("c")) is False


def test_a_group_sets_out_although_the_others_do_not_come_again() -> None:
    """A delivery after a group whose senders are gone is accepted, a moment later."""
    asyncio.run(_gathers_not_for_ever())


async def _datasets_apart() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake)
    tasks = await behind_one(intake, group, [delivery("a")])
    tasks.append(asyncio.create_task(group.accept(delivery("b", dataset="others"))))
    await until(lambda: len(intake.accept_calls) == 2)
    intake.gate.set()
    await asyncio.gather(*tasks)
    assert ids(intake.accept_calls) == [["first"], ["b"], ["a"]]


def test_datasets_do_not_wait_for_one_another() -> None:
    """A call in flight for one dataset does not hold up another dataset, and they never share a call."""
    asyncio.run(_datasets_apart())


async def _bounded() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake, max_group=2, max_group_bytes=10)
    big = [delivery(str(n), body=b"123456") for n in range(2)]
    small = [delivery(str(n)) for n in range(2, 5)]
    tasks = await behind_one(intake, group, [*big, *small])
    intake.gate.set()
    await asyncio.gather(*tasks)
    assert ids(intake.accept_calls) == [["first"], ["0"], ["1", "2"], ["3", "4"]]


def test_a_group_is_bounded_in_deliveries_and_bytes() -> None:
    """A group takes neither more deliveries nor more bytes than it may, and keeps their order."""
    asyncio.run(_bounded())


async def _full() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake, max_waiting=2)
    tasks = await behind_one(intake, group, [delivery("a"), delivery("b")])
    with pytest.raises(Busy):
        await group.accept(delivery("c"))
    intake.gate.set()
    await asyncio.gather(*tasks)
    assert await group.accept(delivery("c")) is False


def test_a_full_queue_refuses_and_recovers() -> None:
    """Beyond its bound the queue says busy, and takes again once it has drained."""
    asyncio.run(_full())


async def _repeats() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake)
    same = [delivery("a"), delivery("a"), delivery("a", source="other"), delivery("first")]
    tasks = await behind_one(intake, group, same)
    intake.gate.set()
    assert await asyncio.gather(*tasks) == [False, False, True, False, True]
    assert ids(intake.accept_calls) == [["first"], ["a", "a", "first"]]


def test_a_repeat_within_a_group_is_a_duplicate() -> None:
    """The second of one source and id is a duplicate; the same id of another source is not."""
    asyncio.run(_repeats())


async def _one_bad() -> None:
    intake = MemoryIntake()

    def refuse(deliveries: Sequence[Delivery]) -> None:
        if any(one.id == "bad" for one in deliveries):
            raise Terminal("refused")

    intake.refuse = refuse
    group = GroupCommit(intake)
    tasks = await behind_one(intake, group, [delivery("a"), delivery("bad"), delivery("bad"), delivery("b")])
    intake.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [bool, bool, Terminal, Terminal, bool]
    assert [one.id for one in intake.deliveries] == ["first", "a", "b"]


def test_one_bad_delivery_does_not_cost_its_neighbours() -> None:
    """When a group fails for good each is tried alone, and only the bad one fails."""
    asyncio.run(_one_bad())


async def _transient() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake)
    tasks = await behind_one(intake, group, [delivery("a"), delivery("b")])
    intake.failure = StoreUnavailable()
    intake.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    assert len(intake.accept_calls) == 2
    intake.failure = None
    assert await group.accept(delivery("a")) is False


def test_an_outage_is_told_to_all_at_once_and_ends() -> None:
    """A transient failure reaches every caller of the group without a try for each, and the next one works."""
    asyncio.run(_transient())


async def _cancelled() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake)
    tasks = await behind_one(intake, group, [delivery("a"), delivery("gone"), delivery("b")])
    tasks[0].cancel()
    tasks[2].cancel()
    intake.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcomes[1], outcomes[3]] == [False, False]
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert await group.accept(delivery("gone")) is True


def test_a_client_that_goes_away_does_not_break_its_group() -> None:
    """Cancelled callers, in flight or waiting, leave the others' answers as they are."""
    asyncio.run(_cancelled())


async def _too_late() -> None:
    intake = MemoryIntake()
    intake.gate.clear()
    group = GroupCommit(intake, answer_seconds=0.05)
    with pytest.raises(Transient):
        await group.accept(delivery("a"))
    intake.gate.set()
    await group.close()
    assert [one.id for one in intake.deliveries] == ["a"]
    with pytest.raises(Busy):
        await group.accept(delivery("b"))


def test_an_intake_that_hangs_is_answered_in_time_and_closing_waits_for_it() -> None:
    """The caller is told to come back, close returns only when nothing is in flight, and then nothing is taken."""
    asyncio.run(_too_late())


async def _too_late_in_the_queue() -> None:
    intake = MemoryIntake()
    group = GroupCommit(intake, answer_seconds=0.5)
    tasks = await behind_one(intake, group, [delivery("b"), delivery("c")])
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [LedgerUnavailable] * 3
    assert group.waiting == 0
    intake.gate.set()
    await group.close()
    assert [one.id for one in intake.deliveries] == ["first"]


def test_what_was_refused_does_not_wait_on() -> None:
    """A delivery whose sender was told to come back leaves the queue, unless its group is under way."""
    asyncio.run(_too_late_in_the_queue())


async def _short_answer() -> None:
    class Short(MemoryIntake):
        def accept(self, deliveries: Sequence[Delivery]) -> list[bool]:
            return []

    with pytest.raises(RuntimeError):
        await GroupCommit(Short()).accept(delivery("a"))


def test_an_answer_for_fewer_deliveries_is_never_taken_as_accepted() -> None:
    """An intake that does not answer for each delivery is an error."""
    asyncio.run(_short_answer())
