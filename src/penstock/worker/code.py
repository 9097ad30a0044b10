"""Which of the project's files a process has imported, and whether they were changed since."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Of a file: its time of change in nanoseconds, and its size in bytes.
Print = tuple[int, int]

# The print of a file that was changed while it was being imported: nobody knows which of the two was imported.
_UNKNOWN: Print = (0, -1)
# Time stamps of files lag behind the clock by a tick of the kernel's.
_TICK_NS = 50_000_000
# Where files that appear are looked for: a run imports these.
_FOLDER = "flows"


@dataclass(frozen=True, kw_only=True)
class Code:
    """The project's files as they were imported, with those of `flows/` that could not be. `root` is its folder."""

    root: Path
    prints: Mapping[str, Print] = field(default_factory=dict)


def imported(root: Path, *, since_ns: int) -> Code:
    """What this process has imported from the project since a moment of `time.time_ns`; installed packages excepted."""
    files = set(_listed(root))
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and "site-packages" not in Path(file).parts and Path(file).is_relative_to(root):
            files.add(file)
    found = {file: print_ for file in files if (print_ := _print(file)) is not None}
    # A time in the future, which some archives bring, is no sign of a change.
    now = time.time_ns() + _TICK_NS
    return Code(
        root=root,
        prints={
            file: _UNKNOWN if since_ns - _TICK_NS <= print_[0] <= now else print_ for file, print_ in found.items()
        },
    )


def changed(code: Code) -> list[str]:
    """The files that were changed, removed or added since, sorted."""
    files = {*code.prints, *_listed(code.root)}
    return sorted(file for file in files if code.prints.get(file) != _print(file))


def _listed(root: Path) -> list[str]:
    return [str(path) for path in (root / _FOLDER).glob("*.py")]


def _print(file: str) -> Print | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
