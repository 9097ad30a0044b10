"""One soak: do what the plan says at its time, end the trouble, wait until nothing is open, compare."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.compare import Row, Verdict, compare, unsettled
from tests.soak.plan import Cut, Kill, schedule
from tests.soak.processes import age, find
from tests.soak.senders import Accepted, Senders
from tests.soak.world import World, running_world

_TICK = 0.05
_TELL_EVERY = 10.0
# A kill that meets no such process within so long is counted as missed.
_PATIENCE = 15.0
_MOST_SHOWN = 10


@dataclass(kw_only=True)
class Figures:
    """What the soak did and found."""

    seed: int
    minutes: float
    bucket_events: str
    kills: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    cuts: int = 0
    objects: int = 0
    generations: int = 0
    deliveries: int = 0
    tries: int = 0
    settled_after: float = 0.0
    refused: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def good(self) -> bool:
        """Nothing lost, nothing twice, nothing wrong, nothing left, nothing refused."""
        return self.verdict.good and not self.refused

    def shown(self) -> dict[str, Any]:
        """The table's lines."""
        return {
            "minutes": f"{self.minutes:g}",
            "seed": self.seed,
            "the bucket's events": self.bucket_events,
            "kills": self.kills.total(),
            **{f"kills of {who}": count for who, count in sorted(self.kills.items())},
            "connections cut": self.cuts,
            "objects": self.objects,
            "their generations": self.generations,
            "deliveries": self.deliveries,
            "seconds until all had ended": f"{self.settled_after:.0f}",
            "rows": self.verdict.rows,
            "lost": len(self.verdict.lost),
            "twice": len(self.verdict.twice),
            "wrong": len(self.verdict.wrong),
            "not ended, or not as they must": len(self.verdict.astray) + len(self.refused),
        }


def soak(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    kill_every: float,
    settle: float,
    postgres: bool,
    say: Callable[[str], None],
) -> Figures:
    """Run one soak in an empty folder; `settle` is how long everything may take to end after it."""
    events = ("webhook", "listen")[seed % 2]
    figures = Figures(seed=seed, minutes=seconds / 60, bucket_events=events)
    accepted = Accepted()
    with (
        _postgres(postgres) as urls,
        running_world(folder, bucket_events=events, urls=urls) as world,
        contextlib.closing(Senders(world, accepted)) as senders,
    ):
        say("everything runs; the trouble begins")
        _Trouble(world, senders, accepted, figures, say).make(seed, seconds, kill_every)
        say("the trouble ends; waiting until nothing is open")
        began = time.monotonic()
        left = _wait_until_settled(world, senders, accepted, seconds=settle, say=say)
        figures.settled_after = time.monotonic() - began
        figures.refused = list(accepted.refused)
        if left:
            figures.refused += [f"{left} senders were never answered with a yes"]
        figures.objects, figures.deliveries = len(accepted.objects), len(accepted.deliveries)
        figures.generations, figures.tries = accepted.generations, accepted.tries
        figures.verdict = compare(world.ledger, accepted, {table: _rows(world, table) for table in ("drops", "posts")})
        if not figures.good:
            _tell(world, figures, say)
    return figures


class _Trouble:
    """Does what the plan says, when it says so."""

    def __init__(
        self, world: World, senders: Senders, accepted: Accepted, figures: Figures, say: Callable[[str], None]
    ) -> None:
        self._world = world
        self._senders = senders
        self._accepted = accepted
        self._figures = figures
        self._say = say
        self._kills: list[tuple[float, Kill]] = []
        self._log = world.up.folder / "soak.log"

    def make(self, seed: int, seconds: float, kill_every: float) -> None:
        """All of it; returns when the time is over."""
        began = time.monotonic()
        told = 0.0
        actions = schedule(seed, seconds, kill_every=kill_every)
        while (now := time.monotonic() - began) < seconds:
            self._world.watch()
            while actions and actions[0].at <= now:
                action = actions.pop(0)
                if isinstance(action, Kill):
                    self._kills.append((now + _PATIENCE, action))
                elif isinstance(action, Cut):
                    self._cut(action)
                else:
                    self._senders.do(action)
            self._kill_those_due(now)
            if now - told >= _TELL_EVERY:
                told = now
                self._tell(now)
            time.sleep(_TICK)

    def _kill_those_due(self, now: float) -> None:
        found = find(self._world.up.folder) if self._kills else {}
        left = []
        for patience, kill in self._kills:
            there = [one for one in found.get(kill.who, []) if kill.who != "run" or age(one) >= kill.after]
            if there and there[0].kill():
                self._figures.kills[kill.who] += 1
                self._note(f"killed {kill.who} {there[0].pid}")
            elif now < patience:
                left.append((patience, kill))
            else:
                self._figures.missed += 1
        self._kills = left

    def _cut(self, cut: Cut) -> None:
        proxy = self._world.links[cut.link]
        (proxy.stall if cut.how == "stall" else proxy.cut)(cut.seconds)
        self._figures.cuts += 1
        self._note(f"{cut.how} of {cut.link} for {cut.seconds:.1f} s")

    def _tell(self, now: float) -> None:
        waiting = unsettled(self._world.ledger, self._accepted)
        self._say(
            f"{now:4.0f} s: {self._figures.kills.total()} kills, {self._figures.cuts} cuts, "
            f"{len(self._accepted.objects)} objects, {len(self._accepted.deliveries)} deliveries, "
            f"{len(waiting)} on their way, {self._senders.unfinished()} senders at work"
        )

    def _note(self, what: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def _wait_until_settled(
    world: World, senders: Senders, accepted: Accepted, *, seconds: float, say: Callable[[str], None]
) -> int:
    """Returns how many senders are unfinished when the time is over."""
    deadline = time.monotonic() + seconds
    told = time.monotonic()
    while time.monotonic() < deadline:
        world.watch()
        waiting, unfinished = unsettled(world.ledger, accepted), senders.unfinished()
        if not waiting and not unfinished:
            return 0
        if time.monotonic() - told >= _TELL_EVERY:
            told = time.monotonic()
            say(f"      {len(waiting)} on their way, {unfinished} senders at work")
        time.sleep(_TICK * 4)
    return senders.unfinished()


def _rows(world: World, table: str) -> Counter[Row]:
    done = world.up.run(
        "query", f"SELECT id, n, text FROM {table}", "--limit", "100000000", "--json", check=False, seconds=120
    )
    if done.returncode:
        # No such table: nothing was loaded into it. The comparison will say what is missing.
        return Counter()
    return Counter((row["id"], row["n"], row["text"]) for row in json.loads(done.stdout))


def _tell(world: World, figures: Figures, say: Callable[[str], None]) -> None:
    verdict = figures.verdict
    for what, found in (("lost", verdict.lost), ("twice", verdict.twice), ("wrong", verdict.wrong)):
        for row, key in list(found.items())[:_MOST_SHOWN]:
            say(f"{what}: row {row} of {key}")
    for key, why in list(verdict.astray.items())[:_MOST_SHOWN]:
        say(f"astray: {key}: {why}")
    for refused in figures.refused[:_MOST_SHOWN]:
        say(f"refused: {refused}")
    bad = [*verdict.lost.values(), *verdict.twice.values(), *verdict.wrong.values(), *verdict.astray]
    for key in list(dict.fromkeys(bad))[:_MOST_SHOWN]:
        say(world.up.run("why", key, check=False).stdout)


@contextlib.contextmanager
def _postgres(wanted: bool) -> Iterator[dict[str, str]]:
    if not wanted:
        yield {}
        return
    raise NotImplementedError
