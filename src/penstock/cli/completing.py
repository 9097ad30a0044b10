"""What a shell offers after TAB: datasets, sources, keys. Reads files only, makes none, and never tells of errors.

Declarations are read as text and not run, since a flow's file may import Prefect, which takes seconds.
"""

from __future__ import annotations

import ast
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from penstock.settings import Settings, load_settings

_MOST = 50
_LONGEST_SECONDS = 0.2
# Bash puts what is offered into the line as it is, and keys and ids come from elsewhere: others could be commands.
_PLAIN = re.compile(r"[\w./:=@%+,-]+", re.ASCII)
# The first character of a word that begins like another, and is greater than all that do.
_AFTER_ALL = chr(0x10FFFF)

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def datasets(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The datasets that flows/ declares."""
    return _offered(context, begun, lambda settings: _named(settings.project_dir / "flows", "Dataset"))


def sources(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The sources that webhook/ declares."""
    return _offered(context, begun, lambda settings: _named(settings.project_dir / "webhook", "Source"))


def keys(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The keys that the ledger has, in their order."""
    sql = "SELECT DISTINCT key FROM objects WHERE bucket = :bucket AND key >= :begun AND key < :end LIMIT :most"
    return _offered(context, begun, lambda settings: _asked(settings, sql, begun))


def quarantined(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The keys of what is in quarantine."""
    sql = (
        "SELECT DISTINCT key FROM objects WHERE state = 'quarantined' AND bucket = :bucket AND key >= :begun "
        "AND key < :end LIMIT :most"
    )
    return _offered(context, begun, lambda settings: _asked(settings, sql, begun))


def deliveries(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The ids of deliveries, the newest first."""
    sql = (
        "SELECT delivery FROM objects WHERE delivery >= :begun AND delivery < :end AND :bucket <> '' "
        "ORDER BY id DESC LIMIT :most"
    )
    return _offered(context, begun, lambda settings: _asked(settings, sql, begun))


def files(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files, which the shell knows best."""
    return [CompletionItem(begun, type="file")]


def _offered(context: click.Context, begun: str, found: Callable[[Settings], Iterator[str]]) -> list[CompletionItem]:
    # Whatever is wrong, the command itself says it when it is run; here it would stand in the middle of a line.
    with suppress(Exception):
        settings = load_settings(context.find_root().params.get("project_dir"))
        names = dict.fromkeys(name for name in found(settings) if name.startswith(begun) and _PLAIN.fullmatch(name))
        return [CompletionItem(name) for name in list(names)[:_MOST]]
    return []


def _named(folder: Path, called: str) -> Iterator[str]:
    """What the files of a folder give as `name=` to `called(…)`."""
    for path in sorted(folder.glob("[!_]*.py")):
        with suppress(SyntaxError, ValueError, OSError):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == called:
                    yield from (
                        one.value.value
                        for one in node.keywords
                        if one.arg == "name"
                        and isinstance(one.value, ast.Constant)
                        and isinstance(one.value.value, str)
                    )


def _asked(settings: Settings, sql: str, begun: str) -> Iterator[str]:
    """What a ledger on this machine answers in time; one on a server is not asked."""
    path = Path(settings.ledger.removeprefix("sqlite:///"))
    if not path.is_file():
        return
    # Without a log beside it nobody writes, and it can be read without the files that SQLite else makes there.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    until = time.monotonic() + _LONGEST_SECONDS
    given: dict[str, Any] = {"bucket": settings.bucket, "begun": begun, "end": begun + _AFTER_ALL, "most": _MOST}
    with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=_LONGEST_SECONDS)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > until, 1000)
        yield from (name for (name,) in connection.execute(sql, given))
