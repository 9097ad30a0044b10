"""Where a command's words go: what was asked for to standard output, what is said beside it to standard error.

Rich heeds `FORCE_COLOR` and `TERM` by itself; here is where it does otherwise than one expects of a program in a pipe.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click
from rich.console import Console

# Wider than any table: what is no terminal has no edge, and a record is one line.
_NO_EDGE = 1_000_000


class _Quietly(Console):
    def on_broken_pipe(self) -> NoReturn:
        # Rich would end the process with 1; `main` knows what it means.
        raise BrokenPipeError


def results() -> Console:
    """A console for what was asked for. In a pipe nothing is wrapped; with `NO_COLOR` nothing is coloured or bold."""
    # With COLUMNS somebody said it, such as `watch`, which is a pipe and shows it on a terminal.
    edge = None if on_terminal() or os.environ.get("COLUMNS") else _NO_EDGE
    options: dict[str, Any] = {"highlight": False, "emoji": False, "width": edge}
    console = _Quietly(**options)
    return _Quietly(**options, force_terminal=False, color_system=None) if console.no_color else console


def chatter() -> Console:
    """Like `results`, and silent with --quiet: for what a command tells of itself before it does what was asked for."""
    console = results()
    console.quiet = is_quiet()
    return console


def aside(line: str) -> None:
    """Say what helps a reader and is no result, such as the next command: to standard error, and not with --quiet."""
    if not is_quiet():
        click.echo(line, err=True)


def is_quiet() -> bool:
    """Whether --quiet was given."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def on_terminal() -> bool:
    """Whether somebody reads the results as they come."""
    return sys.stdout.isatty()
