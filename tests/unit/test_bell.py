"""The bell: heard across processes, harmless where nobody listens."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from penstock.bell import bell_path, listening, ring
from tests.waiting import wait_for


def test_a_ring_of_another_process_ends_the_wait(tmp_path: Path) -> None:
    """A wait of a minute ends when another process rings."""
    path = bell_path(tmp_path)
    with listening(path) as wait:
        heard: list[bool] = []
        thread = threading.Thread(target=lambda: heard.append(wait(60)))
        thread.start()
        code = "import sys, pathlib; from penstock.bell import ring; ring(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        wait_for(lambda: heard, what="the ring is heard")
        thread.join()
    assert heard == [True]


def test_many_rings_are_one(tmp_path: Path) -> None:
    """What rang before the wait ends it once; after that it is quiet again."""
    path = bell_path(tmp_path)
    with listening(path) as wait:
        for _ in range(100_000):  # more than a pipe holds
            ring(path)
        assert wait(0) is True
        assert wait(0) is False


def test_nobody_listens(tmp_path: Path) -> None:
    """Ringing without a pipe, and with one that nobody has open, does nothing and waits for nobody."""
    path = bell_path(tmp_path)
    ring(path)
    assert not path.exists()
    with listening(path):
        pass
    ring(path)


def test_what_is_no_pipe_is_left_alone(tmp_path: Path) -> None:
    """A file in the bell's place is not written to, and whoever listens only waits."""
    path = bell_path(tmp_path)
    path.write_text("mine")
    ring(path)
    with listening(path) as wait:
        assert wait(0) is False
    assert path.read_text() == "mine"


def test_two_who_listen_share_the_rings(tmp_path: Path) -> None:
    """Two listeners do not disturb one another: a ring is heard by at least one of them."""
    path = bell_path(tmp_path)
    with listening(path) as first, listening(path) as second:
        ring(path)
        assert first(0) or second(0)
