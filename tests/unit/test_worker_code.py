"""Whether a process has the project's code as it is now."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.worker.code import changed, imported

_LONG_AGO = time.time() - 3600


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A project's folder of flows, with a file from an hour ago."""
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "sales.py", "A = 1")
    return folder


def write(path: Path, text: str, *, at: float = _LONG_AGO) -> None:
    path.write_text(text)
    os.utime(path, (at, at))


def test_what_stays_as_it_was_is_not_changed(flows: Path) -> None:
    """Nor is what has a time in the future, which no wait would ever catch up with."""
    write(flows / "later.py", "A = 1", at=time.time() + 86_400)
    assert changed(imported(flows.parent, since_ns=time.time_ns())) == []


def test_a_change_an_addition_and_a_removal_are_seen(flows: Path) -> None:
    """A file that could not be imported and was mended is one that was changed."""
    write(flows / "gone.py", "A = 1")
    code = imported(flows.parent, since_ns=time.time_ns())
    write(flows / "sales.py", "A = 2", at=_LONG_AGO + 1)
    write(flows / "new.py", "A = 1")
    (flows / "gone.py").unlink()
    assert changed(code) == [str(flows / name) for name in ("gone.py", "new.py", "sales.py")]


def test_what_changes_during_the_import_is_changed(flows: Path) -> None:
    """A file that was saved after the imports began may have been imported as it was before."""
    began = time.time_ns()
    (flows / "sales.py").write_text("A = 2")
    assert changed(imported(flows.parent, since_ns=began)) == [str(flows / "sales.py")]


def test_what_lies_elsewhere_in_the_project_counts_once_it_is_imported(flows: Path) -> None:
    """A module of the project's own that a flow imports is watched too; installed packages are not."""
    write(flows.parent / "prices.py", "A = 1")
    write(flows / "sales.py", "import prices")
    (flows.parent / "site-packages").mkdir()
    write(flows.parent / "site-packages" / "other.py", "A = 1")
    tell = (
        "import sys, time; from pathlib import Path; began = time.time_ns(); root = Path(sys.argv[1]);"
        "sys.path[:0] = [str(root), str(root / 'site-packages')]; import flows.sales, other;"
        "from penstock.worker.code import imported; print(*sorted(imported(root, since_ns=began).prints))"
    )
    done = subprocess.run(
        [sys.executable, "-c", tell, str(flows.parent)], capture_output=True, text=True, check=True, cwd=flows.parent
    )
    assert done.stdout.split() == [str(flows / "sales.py"), str(flows.parent / "prices.py")]
