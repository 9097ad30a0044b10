"""The values of a source's secrets as they were a moment ago, so that not every request reads files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from penstock.errors import PenstockError
from penstock.webhook.problems import try_later

log = logging.getLogger(__name__)

# A secret that was just set or rotated is in force after this time; until then files are not read again.
_FRESH = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Known:
    """Secrets as they were at `read_at`; `problem` says why nothing can be verified with them."""

    values: Sequence[str] = field(repr=False)
    problem: str | None
    read_at: datetime


class KnownSecrets:
    """`resolve` gives a secret's value by its name, empty where it is unset."""

    def __init__(self, resolve: Callable[[str], str], clock: Callable[[], datetime]) -> None:
        self._resolve = resolve
        self._clock = clock
        self._known: dict[tuple[str, tuple[str, ...]], Known] = {}
        self._complained: set[str] = set()

    def values(self, source: str, names: tuple[str, ...], fits: Callable[[str], bool]) -> Sequence[str]:
        """Those values that fit. Raises Refusal `secret-unset` without any: nothing may pass by mistake.

        One of several may be missing: it was withdrawn, or is yet to come.
        """
        now = self._clock()
        known = self._known.get((source, names))
        if known is None or abs(now - known.read_at) > _FRESH:
            known = self._known[source, names] = self._read(names, fits, now)
        if known.problem is not None:
            if (complaint := f"{source}: {known.problem}") not in self._complained:
                self._complained.add(complaint)
                log.error("the source %s takes nothing, for it has no usable secret: %s", source, known.problem)
            raise try_later("secret-unset", "The source has no usable secret at this moment.")
        return known.values

    def _read(self, names: tuple[str, ...], fits: Callable[[str], bool], now: datetime) -> Known:
        values, problems = [], []
        for name in names:
            try:
                value = self._resolve(name)
            except PenstockError as error:  # a damaged file
                problems.append(f"{name} cannot be read: {error}")
                continue
            if fits(value):
                values.append(value)
            else:
                problems.append(f"{name} {'is no secret of this scheme' if value else 'is not set'}")
        return Known(values=values, problem="; ".join(problems) if problems and not values else None, read_at=now)
