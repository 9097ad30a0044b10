"""How an expression is laid out as Python: on one line where it fits, else one part a line. Pure.

As `ruff format` would have it, which is asked by a test only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 120
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Text:
    """A text, which may be broken between words where it is too long for its line."""

    text: str


@dataclass(frozen=True)
class Group:
    """Parts between two brackets, each with what stands before it (`name=`, `"key": `); `always` one part a line."""

    opening: str
    closing: str
    parts: Sequence[tuple[str, Node]]
    always: bool = False


Node = str | Text | Group


def laid_out(before: str, node: Node) -> str:
    """A statement that begins a line."""
    return before + _written(node, column=0, taken=len(before))


def listed(items: Iterable[Node]) -> Group:
    """A list."""
    return Group("[", "]", [("", item) for item in items])


def mapping(items: Iterable[tuple[str, Node]]) -> Group:
    """A dictionary with texts for keys."""
    return Group("{", "}", [(f"{quoted(key)}: ", value) for key, value in items])


def quoted(text: str) -> str:
    """A text as a literal: in double quotes, unless that takes more escapes."""
    mark = "'" if text.count('"') > text.count("'") else '"'
    return mark + "".join(f"\\{char}" if char == mark else _ESCAPES.get(char) or _shown(char) for char in text) + mark


def _shown(char: str) -> str:
    return char if char.isprintable() else repr(char)[1:-1]


def _written(node: Node, *, column: int, taken: int) -> str:
    flat = _flat(node)
    if flat is not None and column + taken + len(flat) <= WIDTH:
        return flat
    inner = " " * (column + 4)
    if isinstance(node, Text):
        pieces = _pieces(node.text, WIDTH - len(inner))
        if len(pieces) == 1 or taken <= 1:
            return quoted(node.text)
        return "(\n" + "".join(f"{inner}{quoted(piece)}\n" for piece in pieces) + " " * column + ")"
    if isinstance(node, str) or not node.parts:
        return flat or ""
    lines = [
        f"{inner}{before}{_written(part, column=len(inner), taken=len(before) + 1)},\n" for before, part in node.parts
    ]
    return f"{node.opening}\n" + "".join(lines) + " " * column + node.closing


def _flat(node: Node) -> str | None:
    if isinstance(node, str):
        return node
    if isinstance(node, Text):
        return quoted(node.text)
    if node.always and node.parts:
        return None
    parts = []
    for before, part in node.parts:
        flat = _flat(part)
        if flat is None:
            return None
        parts.append(before + flat)
    return node.opening + ", ".join(parts) + node.closing


def _pieces(text: str, room: int) -> list[str]:
    pieces = [""]
    for word in re.findall(r"\S*\s+|\S+", text):
        if pieces[-1] and (pieces[-1].endswith("\n") or len(quoted(pieces[-1] + word)) > room):
            pieces.append("")
        pieces[-1] += word
    return pieces
