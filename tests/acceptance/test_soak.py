"""A short soak: everything is killed at random while things arrive, and then every row is there once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import Figures, soak

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(400)]

SEED = 20261


def test_nothing_is_lost_or_twice_after_kills_and_cuts_on_sqlite_and_duckdb(tmp_path: Path) -> None:
    """Every row of every accepted object and delivery is in its table once, poison is in quarantine."""
    _is_right(_soaked(tmp_path, seconds=60, postgres=False))


@pytest.mark.long
def test_nothing_is_lost_or_twice_after_kills_and_cuts_on_postgresql(tmp_path: Path) -> None:
    """The same with ledger and warehouse in a PostgreSQL that is killed too."""
    figures = _soaked(tmp_path, seconds=45, postgres=True)
    _is_right(figures)
    assert figures.kills["postgres"], figures.shown()


def _soaked(folder: Path, *, seconds: float, postgres: bool) -> Figures:
    print(f"soak of seed {SEED} in {folder}")  # noqa: T201 - shown with a failure
    figures = soak(folder, seed=SEED, seconds=seconds, kill_every=4, settle=200, postgres=postgres, say=print)
    print(figures.shown())  # noqa: T201
    return figures


def _is_right(figures: Figures) -> None:
    assert figures.good, (figures.shown(), figures.verdict, figures.refused)
    # The soak itself did what it is for.
    assert figures.verdict.rows > 1000
    assert figures.deliveries > 5
    assert figures.kills.total() >= 7
    assert len(figures.kills) >= 5
