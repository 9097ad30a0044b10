"""One soak: do what the plan says at its time, end the trouble, wait until nothing is open, compare."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.errors import LedgerUnavailable
from penstock.warehouse.base import Warehouse
from tests.real_postgres import RealPostgres, real_postgres
from tests.soak.compare import Row, Verdict, compare, unsettled
from tests.soak.plan import WHOM, Cut, Kill, Who, schedule
from tests.soak.processes import age, find
from tests.soak.senders import Accepted, Senders
from tests.soak.world import World, running_world

_TICK = 0.05
_TELL_EVERY = 10.0
# A kill that meets no such process within so long is counted as missed.
_PATIENCE = 15.0
# Without these nothing is loaded until they are up again. They are killed only after something was, or a slow machine
# would load nothing, and the soak show nothing.
_NEEDED: frozenset[Who] = frozenset({"prefect", "worker", "forkserver"})
_PATIENCE_FOR_NEEDED = 60.0
# Nothing may be open for so long: what comes late, such as a sweep's second thoughts, would begin within it.
_QUIET = 4.0
_MOST_SHOWN = 10
_MOST_KEPT = 30


@dataclass(kw_only=True)
class Figures:
    """What the soak did and found."""

    seed: int
    minutes: float
    bucket_events: str
    database: str
    kills: Counter[str] = field(default_factory=Counter)
    # Kills that met no such process.
    missed: Counter[str] = field(default_factory=Counter)
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
            "ledger and warehouse": self.database,
            "kills": self.kills.total(),
            **{f"kills of {who}": count for who, count in sorted(self.kills.items())},
            "kills that met nobody": f"{self.missed.total()} {' '.join(sorted(self.missed))}".rstrip(),
            "connections cut": self.cuts,
            "objects": self.objects,
            "their generations": self.generations,
            "deliveries": self.deliveries,
            "tries of senders": self.tries,
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
    database = "PostgreSQL" if postgres else "SQLite and DuckDB"
    figures = Figures(seed=seed, minutes=seconds / 60, bucket_events=events, database=database)
    accepted = Accepted()
    with (
        _postgres(postgres) as server,
        running_world(folder, bucket_events=events, postgres=server) as world,
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
        tables = {table: _rows(world.warehouse, table) for table in ("drops", "posts")}
        figures.verdict = compare(world.ledger, accepted, tables)
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
        # The last load before a process that loading needs was killed.
        self._loaded_before: datetime | None = None
        self._log = world.up.folder / "soak.log"

    def make(self, seed: int, seconds: float, kill_every: float) -> None:
        """All of it; returns when the time is over."""
        began = time.monotonic()
        told = 0.0
        whom = WHOM if self._world.postgres is None else (*WHOM, "postgres")
        actions = schedule(seed, seconds, kill_every=kill_every, whom=whom)
        while (now := time.monotonic() - began) < seconds:
            self._world.watch()
            while actions and actions[0].at <= now:
                action = actions.pop(0)
                if isinstance(action, Kill):
                    patience = _PATIENCE_FOR_NEEDED if action.who in _NEEDED else _PATIENCE
                    self._kills.append((now + patience, action))
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
            if kill.who == "postgres":
                self._world.kill_postgres()
                self._killed(kill, "and started again")
                continue
            there = [one for one in found.get(kill.who, []) if kill.who != "run" or age(one) >= kill.after]
            if there and self._may_go(kill.who) and there[0].kill():
                self._killed(kill, str(there[0].pid))
            elif now < patience:
                left.append((patience, kill))
            else:
                self._figures.missed[kill.who] += 1
                self._note(f"no {kill.who} to be killed")
        self._kills = left

    def _may_go(self, who: Who) -> bool:
        if who not in _NEEDED:
            return True
        loaded = self._world.last_load()
        if loaded is None or loaded == self._loaded_before:
            return False
        self._loaded_before = loaded
        return True

    def _killed(self, kill: Kill, how: str) -> None:
        self._figures.kills[kill.who] += 1
        self._note(f"killed {kill.who} {how}")

    def _cut(self, cut: Cut) -> None:
        proxy = self._world.links[cut.link]
        (proxy.stall if cut.how == "stall" else proxy.cut)(cut.seconds)
        self._figures.cuts += 1
        self._note(f"{cut.how} of {cut.link} for {cut.seconds:.1f} s")

    def _tell(self, now: float) -> None:
        waiting = _waiting(self._world, self._accepted)
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
    told = quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        world.watch()
        waiting, unfinished = _waiting(world, accepted), senders.unfinished()
        if waiting or unfinished:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= _QUIET:
            return 0
        if time.monotonic() - told >= _TELL_EVERY:
            told = time.monotonic()
            say(f"      {len(waiting)} on their way, {unfinished} senders at work")
        time.sleep(_TICK * 4)
    return senders.unfinished()


def _waiting(world: World, accepted: Accepted) -> dict[str, str]:
    try:
        return unsettled(world.ledger, accepted)
    except LedgerUnavailable as error:
        return {"the ledger": str(error)}


def _rows(warehouse: Warehouse, table: str) -> Counter[Row]:
    # None also while nothing was loaded into it and there is no such table; the comparison says what is missing.
    count = warehouse.count(table)
    if not count:
        return Counter()
    found = warehouse.query(f"SELECT id, n, text FROM {table}", limit=count, seconds=120)
    assert not found.truncated, f"{table} still grows"
    return Counter(found.rows)


def _tell(world: World, figures: Figures, say: Callable[[str], None]) -> None:
    verdict = figures.verdict
    for what, found in (("lost", verdict.lost), ("twice", verdict.twice), ("wrong", verdict.wrong)):
        for key, count in Counter(found.values()).most_common(_MOST_SHOWN):
            example = next(row for row, of in found.items() if of == key)
            say(f"{what}: {count} rows of {key}, such as {example}")
    for key, why in list(verdict.astray.items())[:_MOST_SHOWN]:
        say(f"astray: {key}: {why}")
    for refused in figures.refused[:_MOST_SHOWN]:
        say(f"refused: {refused}")
    bad = [*verdict.lost.values(), *verdict.twice.values(), *verdict.wrong.values(), *verdict.astray]
    # The folder gets more of them than are shown: PostgreSQL's data goes with its server.
    with (world.up.folder / "why.txt").open("w") as file:
        for number, key in enumerate(list(dict.fromkeys(bad))[:_MOST_KEPT]):
            why = world.up.run("why", key, check=False).stdout
            file.write(why)
            if number < _MOST_SHOWN:
                say(why)


@contextlib.contextmanager
def _postgres(wanted: bool) -> Iterator[RealPostgres | None]:
    if not wanted:
        yield None
        return
    with real_postgres() as server:
        yield server
