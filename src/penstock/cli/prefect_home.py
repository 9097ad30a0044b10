"""Keeps Prefect out of its user's own folder: what is there is of another Prefect, and is neither read nor written."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import click

from penstock.errors import PenstockError


def keep_prefect_apart() -> None:
    """From its import on, Prefect has its folder in the project's, whatever imports it: a file of flows/ may."""
    sys.meta_path.insert(0, _BeforePrefect())


class _BeforePrefect(MetaPathFinder):
    """Finds nothing. Prefect reads its settings and makes its folder when it is imported, so this comes before."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        context = click.get_current_context(silent=True)
        if fullname == "prefect" and context is not None:
            sys.meta_path.remove(self)
            _set(context)
        return None


def _set(context: click.Context) -> None:
    from penstock.settings import load_settings

    # Where the settings are wrong the command says so; a folder that cannot be made, Prefect does without.
    with suppress(PenstockError, OSError):
        home = load_settings(context.find_root().params["project_dir"]).home / "prefect"
        for foreign in ("PREFECT_PROFILE", "PREFECT_API_KEY"):
            os.environ.pop(foreign, None)
        os.environ["PREFECT_HOME"] = str(home)
        os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
        home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.mkdir(exist_ok=True, mode=0o700)
