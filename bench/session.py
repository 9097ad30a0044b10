"""One run of the benches: where it works, how large, and what several benches share."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from bench.world import World, world

T = TypeVar("T")


@dataclass(kw_only=True)
class Session:
    """`quick` is small and does not judge. `drops` is how many files are dropped one by one."""

    folder: Path
    quick: bool
    drops: int
    say: Callable[[str], None]
    random: Random
    _once: dict[str, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _shared: ExitStack = field(default_factory=ExitStack)
    _world: World | None = None

    def pick(self, full: T, quick: T) -> T:
        """The one size or the other."""
        return quick if self.quick else full

    def once(self, name: str, measure: Callable[[], T]) -> T:
        """What several benches are held against, measured by the first that asks."""
        if name not in self._once:
            self._once[name] = measure()
        found: T = self._once[name]
        return found

    def new_folder(self, name: str) -> Path:
        """A path that is not there yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def pause(self, least: float, most: float) -> None:
        """A random pause, so that what is dropped meets every phase of every timer."""
        time.sleep(self.random.uniform(least, most))

    @contextmanager
    def running(self, name: str, *, sweep_seconds: int = 30) -> Iterator[World]:
        """A project that runs: a new one for each bench, or with `quick` the same for all of them."""
        if not self.quick:
            folder = self.new_folder(name)
            with world(folder, sweep_seconds=sweep_seconds) as made:
                yield made
            shutil.rmtree(folder, ignore_errors=True)
            return
        if self._world is None:
            self._world = self._shared.enter_context(world(self.new_folder("quick"), sweep_seconds=3600))
        try:
            yield self._world
        except BaseException:
            # What is left of it may spoil the next bench.
            self._world = None
            self._shared.close()
            raise

    def close(self) -> None:
        """End what is shared."""
        self._world = None
        self._shared.close()
