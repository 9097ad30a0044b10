"""Files of a project, as tests import them: one by its path, or a whole folder's under the names that it gives them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from penstock.project import FOLDERS


def module_at(path: Path) -> ModuleType:
    """The file as a module of its own, which `import` does not find."""
    spec = importlib.util.spec_from_file_location(f"{path.parents[1].name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def another_project() -> Iterator[None]:
    """Within it `flows.…` and the like are whatever project is loaded there, and afterwards what they were before."""
    path = list(sys.path)
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_a_projects(name)}
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if _is_a_projects(name)]:
            del sys.modules[name]
        sys.modules.update(ours)


def _is_a_projects(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in FOLDERS
