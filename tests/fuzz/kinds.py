"""All kinds of requests, and how often each comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fuzz import broken, spoken
from tests.fuzz.shapes import Maker, Shape

KINDS: tuple[tuple[Callable[[Maker], Shape], float], ...] = (
    (spoken.good, 20),
    (spoken.again, 6),
    (spoken.chosen, 6),
    (spoken.odd_body, 6),
    (spoken.unsigned, 6),
    (spoken.authorization, 2),
    (broken.scrambled, 8),
    (broken.spliced, 6),
    (broken.head, 4),
    (broken.huge_head, 0.5),
    (broken.length, 3),
    (broken.chunked, 4),
    (broken.smuggled, 3),
    (spoken.pipelined, 3),
    (broken.left, 4),
    (broken.slow, 0.05),
    (spoken.pieces, 3),
    (broken.target, 4),
    (spoken.gzipped, 5),
    (spoken.large, 0.3),
    (spoken.limited, 3),
    (spoken.cloudevent, 5),
    (spoken.notification, 5),
    (spoken.operation, 2),
    (spoken.handshake, 3),
)


def make(seed: int, number: int, secrets: Mapping[str, str]) -> Shape:
    """The request of this number: the same for the same seed, but for the time that it is signed with."""
    maker = Maker(seed, number, secrets)
    kinds, weights = zip(*KINDS, strict=True)
    [kind] = maker.chance.choices(kinds, weights)
    shape: Shape = kind(maker)
    return shape
