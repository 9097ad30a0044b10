"""Which libraries a warm process may have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.worker.nursery import Nursery, _end_fork_server


@pytest.mark.parametrize(
    ("flow", "born"),
    [
        ("import numpy", "forked from a warm process"),
        (
            "import threading\n\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "a fresh interpreter each, because importing the flows left 2 threads alive",
        ),
    ],
)
def test_runs_are_forked_unless_a_thread_would_be_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: str, born: str
) -> None:
    """NumPy's threads end before a fork and are begun anew after it; a flow's own are not."""
    (tmp_path / "flows").mkdir()
    declared = 'from penstock import Dataset\n\nDATASET = Dataset(name="one")\n'
    (tmp_path / "flows" / "one.py").write_text(f"{flow}\n{declared}")
    monkeypatch.setenv("PENSTOCK_PROJECT_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    try:
        assert asyncio.run(Nursery(tmp_path).warm()).startswith(born)
    finally:
        _end_fork_server()
