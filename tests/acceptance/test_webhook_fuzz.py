"""A short run of `make fuzz`: whatever comes over the socket, the edge answers as it should and stays as it was."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.run import fuzz

REQUESTS = 3000


def test_nothing_that_comes_over_the_socket_breaks_the_edge(tmp_path: Path) -> None:
    """Good requests are taken and bad ones refused; 503 only while the store is away; memory and files come back.

    What was answered with 202 is in the ledger once; what only a smuggled or unsigned request held is not there.
    """
    figures = fuzz(tmp_path / "project", requests=REQUESTS, seed=14)
    assert not figures.wrong, "\n".join(figures.wrong[:20])
    assert figures.requests == REQUESTS
    assert figures.injected >= 20
    assert figures.outages == 3
    # Nothing of it was left out by mistake.
    assert {"200", "202", "400", "401", "404", "405", "410", "413", "415", "429", "503"} <= set(figures.answers)
