"""Which of the project's files a process has imported, and whether they were changed since."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# Of each file its time of change in nanoseconds, and its size in bytes.
Code = Mapping[str, tuple[int, int]]


def imported(root: Path) -> Code:
    """The files below the project's folder that this process has imported, installed packages excepted."""
    found: dict[str, tuple[int, int]] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not file or "site-packages" in Path(file).parts or not Path(file).is_relative_to(root):
            continue
        if (print_ := _print(file)) is not None:
            found[file] = print_
    return found


def changed(code: Code) -> list[str]:
    """Those of the files that were changed or removed since, sorted."""
    return sorted(file for file, print_ in code.items() if _print(file) != print_)


def _print(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
