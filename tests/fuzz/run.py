"""Sends the shapes to a real `penstock serve`, many at once, and keeps the books: statuses, memory, files, ledger.

Now and then the store is killed or stands still. A 503 is right while it is away, and never otherwise.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.served import Served, serving
from tests.fuzz import project
from tests.fuzz.kinds import make
from tests.fuzz.shapes import Shape
from tests.fuzz.wire import Answer, Told, exchange
from tests.waiting import wait_for

AT_ONCE = 128
# What a process may hold more at the end than after the warm-up: what the allocator keeps of large bodies and heads.
GROWTH_BYTES = 48_000_000
# Connections to the store and the ledger that are kept or not, as the last moment had it.
MORE_FILES = 16
API_TOKEN = "the fuzzer asks without it"
_WARM = 0.2
_PROBLEM = "application/problem+json"
_AWAY = ("unavailable", "busy", "not-ready")


@dataclass(kw_only=True)
class Figures:
    """What came of it. `wrong` is empty when everything is right."""

    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    injected: int = 0
    outages: int = 0
    seconds: float = 0.0
    rss: list[tuple[int, int]] = field(default_factory=list)
    files: tuple[int, int] = (0, 0)
    wrong: list[str] = field(default_factory=list)

    @property
    def grown(self) -> int:
        """Bytes of memory at the end over those after the warm-up."""
        return self.rss[-1][1] - self.rss[0][1]

    def shown(self) -> dict[str, Any]:
        """The figures to print."""
        return {
            "requests": self.requests,
            "seconds": round(self.seconds),
            **{f"answered {status}": count for status, count in sorted(self.answers.items())},
            "of these 503 while the store was away": self.injected,
            "outages of the store": self.outages,
            "resident MB, after how many requests": ", ".join(f"{rss / 1e6:.0f} ({n})" for n, rss in self.rss),
            "open files after the warm-up, and at the end": f"{self.files[0]}, {self.files[1]}",
            "wrong": len(self.wrong),
        }


def fuzz(
    folder: Path,
    *,
    requests: int,
    seed: int,
    freezes: bool = False,
    only: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Figures:
    """Send so many; the same seed sends the same, but for the times. `only` sends one number alone.

    `freezes` has the store stand still too, half a minute each time, and not only die.
    """
    secrets = project.secrets()
    with serving(
        folder, project.files(), **secrets, PENSTOCK_LOG_LEVEL="WARNING", PENSTOCK_API_TOKEN=API_TOKEN
    ) as served:
        run = _Run(served=served, seed=seed, secrets=secrets, freezes=freezes, say=say)
        if only is not None:
            asyncio.run(run.alone(only))
        else:
            asyncio.run(run.all(requests))
        run.figures.seconds = time.monotonic() - run.began
        run.last_looks()
        return run.figures


@dataclass(kw_only=True)
class _Run:
    served: Served
    seed: int
    secrets: dict[str, str]
    freezes: bool
    say: Callable[[str], None]
    figures: Figures = field(default_factory=Figures)
    began: float = field(default_factory=time.monotonic)
    # They take half a minute and no work: in nobody's place.
    slow: set[asyncio.Task[None]] = field(default_factory=set)
    taken: set[tuple[str, str]] = field(default_factory=set)
    never: set[tuple[str, str]] = field(default_factory=set)
    documented: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    # Odd while the store is away. What was under way at a change may meet either.
    moments: int = 0

    async def all(self, requests: int) -> None:
        """A warm-up, and then the rest with the outages."""
        await self.some(range(int(requests * _WARM)))
        self.look()
        before = self.files()
        rest = range(int(requests * _WARM), requests)
        tenth = len(rest) // 10
        for part in range(10):
            first = rest[0] + part * tenth
            last = requests if part == 9 else first + tenth
            sending = asyncio.create_task(self.some(range(first, last)))
            try:
                if part % 3 == 1:
                    await self.outage(freeze=self.freezes and part == 4, until=sending)
            finally:
                await sending
            self.look()
        await asyncio.gather(*self.slow)
        self.figures.files = (before, await asyncio.to_thread(self.files_when_quiet, before))
        self.look()

    async def alone(self, number: int) -> None:
        """This one."""
        await self.some([number])
        await asyncio.gather(*self.slow)

    async def some(self, numbers: range | list[int]) -> None:
        """These numbers, so many at once."""
        if not self.documented:
            self.documented = _documented(self.served.url)
        left = iter(numbers)

        async def sender() -> None:
            for number in left:
                await self.one(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(sender())

    async def one(self, number: int) -> None:
        """Make it, send it, and judge; of what is slow, only begin."""
        shape = make(self.seed, number, self.secrets)
        if shape.end == "slow":
            self.slow.add(asyncio.create_task(self.send(number, shape)))
        else:
            await self.send(number, shape)

    async def send(self, number: int, shape: Shape) -> None:
        """One exchange and its judgement."""
        before = self.moments
        told = await exchange(self.served.port, shape.pieces, shape.end, head_only=shape.head_only)
        self.judge(number, shape, told, away=before % 2 == 1 or self.moments != before)

    def judge(self, number: int, shape: Shape, told: Told, *, away: bool) -> None:
        """Count, and write down what is wrong."""
        figures = self.figures
        figures.requests += 1
        figures.kinds[shape.kind] += 1
        if not told.answers:
            figures.answers["nothing"] += 1
        if shape.never:
            self.never.add(shape.never)
        wrong = [told.wrong] if told.wrong else []
        for answer in told.answers:
            figures.answers[str(answer.status)] += 1
            text = answer.body.decode(errors="replace")
            injected = answer.status == 503 and away and any(f":{kind}" in text for kind in _AWAY)
            figures.injected += injected
            if answer.status >= 500 and not injected:
                wrong.append(f"{answer.status} {text[:300]}")
            elif shape.must and not injected and answer.status not in shape.must:
                wrong.append(f"{answer.status}, not one of {sorted(shape.must)}: {text[:300]}")
            elif shape.documented and answer.status not in self.documented.get(shape.documented, ()):
                wrong.append(f"{answer.status} is not documented for {shape.documented}")
            # What uvicorn refuses by itself never came as far as the edge.
            bare = answer.status == 400 and answer.body == b"Invalid HTTP request received."
            if answer.status >= 400 and shape.documented and not bare and _kind(answer) != _PROBLEM:
                wrong.append(f"{answer.status} is no problem: {answer.headers}")
            if 300 <= answer.status < 400:
                wrong.append(f"leads elsewhere: {answer.status} {answer.headers}")
            if "Traceback" in text or "x-injected" in answer.headers or "server" in answer.headers:
                wrong.append(f"says too much: {answer.headers} {text[:300]}")
        if len(told.answers) == len(shape.taken):
            self.taken.update(
                one for one, answer in zip(shape.taken, told.answers, strict=True) if answer.status == 202
            )
        for one in wrong:
            figures.wrong.append(f"number {number}, {shape.kind}: {one}")
            self.say(figures.wrong[-1])

    async def outage(self, *, freeze: bool, until: asyncio.Task[None]) -> None:
        """The store is away until some were told so."""
        self.figures.outages += 1
        seen = self.figures.injected
        process = self.served.store.process
        assert process is not None
        self.moments += 1
        if freeze:
            process.send_signal(signal.SIGSTOP)
        else:
            await asyncio.to_thread(self.served.store.kill)
        while self.figures.injected < seen + 20 and not until.done():
            await asyncio.wait([until], timeout=0.05)
        if freeze:
            process.send_signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(self.served.store.start)
        # The circle is closed when one is taken again.
        await asyncio.to_thread(wait_for, self._ready, seconds=60, what="the edge is ready again")
        self.moments += 1

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.served.url}/readyz", timeout=10).is_success
        except httpx.HTTPError:
            return False

    def look(self) -> None:
        """What memory the process has now."""
        rss = 0
        for pid in self.served.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            rss += int(status.partition("VmRSS:")[2].split()[0]) * 1024
        self.figures.rss.append((self.figures.requests, rss))
        took = time.monotonic() - self.began
        self.say(f"{self.figures.requests} requests, {took:.0f} s, {rss / 1e6:.0f} MB, {len(self.figures.wrong)} wrong")

    def files(self) -> int:
        """How many files and sockets it has open."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.served.pids())

    def files_when_quiet(self, before: int) -> int:
        """The same when what was left half way has been given up."""
        try:
            wait_for(lambda: self.files() <= before + MORE_FILES, seconds=45, what="the connections are closed")
        except AssertionError as error:
            self.figures.wrong.append(str(error))
        return self.files()

    def last_looks(self) -> None:
        """It still runs and takes deliveries; what was taken is in the ledger, once, and what must not be is not."""
        wrong = self.figures.wrong
        if not self.served.runs():
            wrong.append(f"serve has ended; see {self.served.log}")
        if self.figures.rss and self.figures.grown > GROWTH_BYTES:
            wrong.append(f"memory has grown by {self.figures.grown} bytes: {self.figures.rss}")
        with sqlite3.connect(self.served.ledger_url.removeprefix("sqlite:///")) as connection:
            rows = connection.execute("SELECT source, delivery FROM objects WHERE delivery IS NOT NULL").fetchall()
        known = Counter((str(source), str(delivery)) for source, delivery in rows)
        if lost := self.taken - set(known):
            wrong.append(f"{len(lost)} answered with 202 are not in the ledger: {sorted(lost)[:5]}")
        if doubled := [one for one, count in known.items() if count > 1]:
            wrong.append(f"{len(doubled)} are in the ledger twice: {doubled[:5]}")
        if passed := self.never & set(known):
            wrong.append(f"{len(passed)} got in that must not: {sorted(passed)[:5]}")
        log = self.served.log.read_text()
        if "Traceback" in log:
            start = log.index("Traceback")
            wrong.append(f"a traceback in the log: {log[start : start + 1500]}")


def _kind(answer: Answer) -> str:
    return answer.headers.get("content-type", "")


def _documented(url: str) -> dict[tuple[str, str], set[int]]:
    paths = json.loads(httpx.get(f"{url}/openapi.json").raise_for_status().content)["paths"]
    return {
        (method, path): {int(status) for status in operation["responses"]}
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
