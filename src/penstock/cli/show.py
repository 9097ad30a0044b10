"""How facts look on a terminal. Pure, but for `table`, which makes rich's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table

from penstock.cli.output import on_terminal
from penstock.model import State

if TYPE_CHECKING:
    from penstock.ledger.facts import Story

STYLES = {
    State.LOADED: "green",
    State.QUARANTINED: "red",
    State.WAITING: "cyan",
    State.PENDING: "yellow",
    State.CLAIMED: "yellow",
    State.MISSING: "red",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A plain table; numbers to the right. In a pipe a row is one line, whatever is in it."""
    found = [list(row) for row in rows]
    ends = {} if on_terminal() else {ord("\n"): "\\n", ord("\t"): "\\t"}
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(found) and all(isinstance(row[index], int | float) for row in found)
        made.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in found:
        made.add_row(*(cell(value).translate(ends) for value in row))
    return made


def cell(value: Any) -> str:
    """One value: nothing for None, moments without microseconds, text with rich's brackets kept as they are."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value)).replace("[", r"\[")


def printable(text: str) -> str:
    """The text with every character escaped that a terminal would obey or not show, but for line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)


def moment(value: datetime) -> str:
    """In the reader's time zone, to the second."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def one_line(story: Story) -> str:
    """What `penstock up` says of an object, in rich's markup."""
    style = STYLES.get(story.state, "dim")
    took = (story.changed_at - story.arrived_at).total_seconds()
    tail = ""
    if story.state is State.LOADED:
        tail = f"{story.rows:,} rows, {took:.1f} s" + (f", {story.rejected:,} rejected" if story.rejected else "")
    elif story.reason:
        tail = cell(story.reason)
    name = cell(story.delivery or story.key)
    return f"{story.changed_at.astimezone():%H:%M:%S}  [{style}]{story.state.value:<11}[/{style}] {name}  {tail}"
