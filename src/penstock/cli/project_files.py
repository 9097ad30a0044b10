"""The files of a new project: its name, where it gets penstock from, and what they say. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from penstock.errors import SettingsError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,48}[a-z0-9])?")
_WHEEL = re.compile(r"penstock-([0-9][A-Za-z0-9.!+_]*)-[^/\\]+\.whl")
_PLACEHOLDER = re.compile(r"@([a-z]+)@")
_LINE = "# @sources@"
_ELSEWHERE = "change its address in `pyproject.toml`"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a project gets penstock from: uv's `source` for it, empty for the package index.

    `wheel` is the file to be copied into the project, which then needs nothing outside of itself. `version` is that of
    the wheel, empty where nothing tells. `upgrade` is how a newer one is brought, in the README's words.
    """

    source: str = ""
    wheel: Path | None = None
    version: str = ""
    upgrade: str = "`uv sync --upgrade-package penstock`"


def name_from(text: str, *, taken: Callable[[str], bool]) -> str:
    """A project's name, as a folder's name or a person says it, in the signs that a name may have.

    `taken` tells whether a package has that name: the project's would hide it. Raises SettingsError.
    """
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{text!r} gives no usable project name: say one of a-z, 0-9, - and _ with --name")
    if taken(name):
        raise SettingsError(f"{name} is the name of a package that a project needs: choose another with --name")
    return name


def origin_given(where: Path) -> Origin:
    """Penstock from a wheel or a checkout that somebody names. Raises SettingsError when it is neither."""
    where = where.absolute()
    if found := _WHEEL.fullmatch(where.name):
        if not where.is_file():
            raise SettingsError(f"{where} is not there: say with --from which wheel or checkout, or index")
        upgrade = "put its wheel here and its file name into `pyproject.toml`"
        return Origin(source=_entry(path=where.name), wheel=where, version=found[1], upgrade=upgrade)
    if (where / "pyproject.toml").is_file() and (where / "src" / "penstock").is_dir():
        return Origin(source=_entry(path=str(where), editable=True), upgrade=f"bring `{where}` up to date")
    raise SettingsError(
        f"{where} is neither a wheel of penstock (penstock-….whl) nor a checkout of it: say with --from which, or index"
    )


def origin_of(direct_url: Mapping[str, Any] | None) -> Origin:
    """Penstock from where the running one was installed from, as its direct_url.json (PEP 610) tells.

    None: it came from a package index. Raises SettingsError when what it came from is no longer there.
    """
    if direct_url is None:
        return Origin()
    url = str(direct_url["url"])
    if vcs := direct_url.get("vcs_info"):
        return Origin(source=_entry(**{str(vcs["vcs"]): url, "rev": str(vcs["commit_id"])}), upgrade=_ELSEWHERE)
    parts = urlsplit(url)
    if parts.scheme != "file":
        return Origin(source=_entry(url=url), upgrade=_ELSEWHERE)
    return origin_given(Path(unquote(parts.path)))


def values_for(name: str, origin: Origin, *, version: str) -> dict[str, str]:
    """What stands for each placeholder of the template; `version` is the running penstock's."""
    return {
        "name": name,
        "bucket": f"{name.replace('_', '-')}-landing",
        "version": origin.version or version,
        "sources": f"\n[tool.uv.sources]\npenstock = {origin.source}" if origin.source else "",
        "upgrade": origin.upgrade,
    }


def filled(text: str, values: Mapping[str, str]) -> str:
    """A file of the template with its placeholders replaced. Raises KeyError for one that there is no value for."""
    text = text.replace(_LINE, "@sources@")
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text).rstrip("\n") + "\n"


def is_for_a_project(path: PurePosixPath) -> bool:
    """Whether a file of the template goes into a project: what Python compiled beside it does not."""
    return "__pycache__" not in path.parts


def _entry(**fields: str | bool) -> str:
    # JSON's strings and booleans are TOML's too.
    said = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    return f"{{ {', '.join(said)} }}"
