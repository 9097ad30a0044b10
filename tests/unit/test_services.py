"""How long the sensors' service rests between two sweeps."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from penstock.cli.services import _pause
from penstock.declarations import Bucket


@pytest.mark.parametrize(
    ("every", "blind", "took", "pause"),
    [
        (30, False, 0.1, 30),
        (30, False, 20.0, 200),
        (30, True, 0.01, 1),
        (30, True, 0.5, 5),
        (30, True, 20.0, 200),
        (0.2, True, 0.001, 0.2),
    ],
)
def test_a_sweep_rests_ten_times_as_long_as_it_took(every: float, blind: bool, took: float, pause: float) -> None:
    """The interval is the least, a second for a bucket that tells of nothing; a large one is not listed on and on."""
    told = threading.Event()
    if blind:
        told.set()
    assert _pause(Bucket(every=timedelta(seconds=every)), told, took) == pytest.approx(pause)
