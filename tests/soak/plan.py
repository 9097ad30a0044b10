"""What a soak does, and when: a pure function of its seed.

The world answers in its own time, so that two soaks of one seed do the same things but do not meet the same races.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

How = Literal["written", "moved", "chunks", "reopened"]
Who = Literal["sensors", "serve", "relay", "worker", "forkserver", "run", "minio", "prefect", "postgres"]
Link = Literal["store", "prefect", "webhook"]
CutHow = Literal["cut", "stall"]

HOWS: tuple[How, ...] = ("written", "moved", "chunks", "reopened")
# Each is killed once in a round, in any order; a run, where rows could be lost or doubled, twice.
WHOM: tuple[Who, ...] = ("sensors", "serve", "relay", "worker", "forkserver", "run", "run", "minio", "prefect")
LINKS: tuple[Link, ...] = ("store", "store", "prefect", "webhook")

HEADER = "id,n,text"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What one generation of a key, or one delivery, holds; every row's id begins with `id` and is used once."""

    id: str
    rows: int
    poison: bool = False

    def lines(self) -> list[tuple[str, int, str]]:
        """The rows as the table should have them: id, n, text."""
        return [(f"{self.id}.{n}", n, f"{self.id} row, {n}") for n in range(self.rows)]

    def chunks(self) -> list[bytes]:
        """The CSV file, a line each; of a poison file too few rows are good."""
        if self.poison:
            return [f"{HEADER}\n".encode(), *(f"{self.id}.{n},-{n + 1},bad\n".encode() for n in range(self.rows))]
        return [f"{HEADER}\n".encode(), *(f'{row[0]},{row[1]},"{row[2]}"\n'.encode() for row in self.lines())]

    def body(self) -> bytes:
        """The CSV file whole."""
        return b"".join(self.chunks())


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A file for the inbox; `pause` is the time between two chunks.

    Poison for a key that holds something good waits until that is loaded: its rows have to stay.
    """

    at: float
    key: str
    content: Content
    how: How
    pause: float


@dataclass(frozen=True, kw_only=True)
class Put:
    """An object for the bucket, by an S3 client."""

    at: float
    key: str
    content: Content


@dataclass(frozen=True, kw_only=True)
class Post:
    """A webhook delivery, sent until it is accepted, then `again` times more; with `together` all of them at once."""

    at: float
    source: Literal["shop", "hub"]
    content: Content
    again: int
    together: bool


@dataclass(frozen=True, kw_only=True)
class Kill:
    """kill -9; a run is waited for, and killed `after` seconds of its life."""

    at: float
    who: Who
    after: float


@dataclass(frozen=True, kw_only=True)
class Cut:
    """All connections of a link end, and none is taken for so long; a `stall` keeps them and passes nothing on."""

    at: float
    link: Link
    how: CutHow
    seconds: float


Action = Drop | Put | Post | Kill | Cut


def schedule(
    seed: int,
    seconds: float,
    *,
    things_every: float = 0.4,
    kill_every: float = 5.0,
    cut_every: float = 12.0,
    whom: Sequence[Who] = WHOM,
) -> list[Action]:
    """Everything that happens in a soak of so many seconds, in order; the figures are means."""
    random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
    actions: list[Action] = []
    taken: dict[str, list[str]] = {"file": [], "put": []}
    for number, at in enumerate(_moments(random, seconds, things_every)):
        kind = random.choice(("file", "file", "put", "post"))
        if kind == "post":
            actions.append(_post(random, at, number))
        else:
            actions.append(_object(random, at, number, kind, taken[kind]))
    actions += [
        Kill(at=at, who=who, after=random.uniform(0, 1.2))
        for at, who in zip(_moments(random, seconds, kill_every), _rounds(random, whom), strict=False)
    ]
    actions += [
        Cut(
            at=at,
            link=random.choice(LINKS),
            how=random.choice(("cut", "cut", "stall")),
            seconds=random.uniform(0.2, 2.5),
        )
        for at in _moments(random, seconds, cut_every)
    ]
    return sorted(actions, key=lambda action: action.at)


def _moments(random: Random, seconds: float, every: float) -> list[float]:
    moments, at = [], random.uniform(0, every)
    while at < seconds:
        moments.append(at)
        at += random.uniform(0.2, 1.8) * every
    return moments


def _rounds(random: Random, whom: Sequence[Who]) -> Iterator[Who]:
    while True:
        yield from random.sample(whom, len(whom))


def _object(random: Random, at: float, number: int, kind: str, taken: list[str]) -> Drop | Put:
    poison = random.random() < 0.05
    rows = random.choice((1, 3, 10, 40, 400))
    how = random.choice(HOWS)
    if taken and random.random() < (0.4 if poison else 0.2):
        # The youngest are the likeliest to be on their way still.
        key = random.choice(taken[-4:] if random.random() < 0.6 else taken)
        if poison:
            # Whole at once: no part of it may count as a good generation of its own.
            how = "moved"
    else:
        key = f"drops/{kind}-{number}.csv"
        if not poison:
            taken.append(key)
    content = Content(id=f"{kind[0]}{number}", rows=rows, poison=poison)
    if kind == "put":
        return Put(at=at, key=key, content=content)
    return Drop(at=at, key=key, content=content, how=how, pause=random.uniform(0.01, 0.2))


def _post(random: Random, at: float, number: int) -> Post:
    return Post(
        at=at,
        source=random.choice(("shop", "hub")),
        content=Content(id=f"w{number}", rows=1),
        again=random.choice((0, 0, 0, 1, 3)),
        together=random.random() < 0.5,
    )
