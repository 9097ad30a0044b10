"""One `penstock up` on MinIO that the tests of a run share; a test that stops or breaks one starts its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.running import Up


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up.make(tmp_path_factory.mktemp("up"))
    try:
        running.start()
        yield running
    finally:
        if running.process is not None:
            running.stop(signal.SIGTERM)


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A folder of the test's own, not started yet."""
    mine = Up.make(tmp_path_factory.mktemp("own"), store="embedded")
    try:
        yield mine
    finally:
        if mine.process is not None:
            mine.stop(signal.SIGTERM)
