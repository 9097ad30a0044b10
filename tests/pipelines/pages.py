r"""The commands and files that Markdown pages show: found, split, and compared with what was printed. Pure.

What a test has to know about a block stands in HTML comments right before it, which no reader of the page sees:

    <!-- not run: needs docker -->           nobody runs it here, and why
    <!-- run by: tests/acceptance/test_x.py -->   that test (or script) does
    <!-- before: printf 'a\n1\n' > a.csv --> what the test does first, for what the page takes for granted
    <!-- alone -->                           in a new project of its own, in which nothing runs
    <!-- exits: 1 -->                        how its last command ends; else 0
    <!-- not written: … -->                  before a file of a project: it is not put into the one that runs
    <!-- not compared: … -->                 before what is printed: it is another day's
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
_NOTE = re.compile(r"^ *<!-- *(not run|run by|before|alone|exits|not written|not compared)(?:: *(.*?))? *-->$")
_FILE = re.compile(r"^# ((?:flows|sensors|webhook|automations|tests)/[\w/]+\.py)$")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
# What starts the system and stays until Ctrl-C.
_UP = re.compile(r"^(?:uv run )?penstock up(?:\s|$)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: its line in the page, language and text, and what the comments before it say."""

    page: str
    line: int
    language: str
    text: str
    notes: tuple[tuple[str, str], ...] = ()
    # What the page shows of what this block prints: the `text` block right behind it.
    shown: str | None = None

    def note(self, name: str) -> str | None:
        """What the comment of that name says, None where there is none."""
        return next((said for found, said in self.notes if found == name), None)

    @property
    def where(self) -> str:
        """For a message."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> PurePosixPath | None:
        """Which file of a project it is, by the comment in its first line."""
        found = _FILE.match(self.text.partition("\n")[0]) if self.language == "python" else None
        return PurePosixPath(found[1]) if found else None

    @property
    def runs_here(self) -> bool:
        """Whether its commands are to be run by the test of the pages."""
        return self.language == "sh" and self.note("not run") is None and self.note("run by") is None


def blocks(page: str, text: str) -> list[Block]:
    """Every fenced block of a page, in its order."""
    found: list[Block] = []
    notes: list[tuple[str, str]] = []
    follows = False  # nothing but empty lines and comments since the last block
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opened = _FENCE.match(line)
        if opened:
            body = "".join(f"{one}\n" for one in _body(lines, indent=len(opened[1]), fence=opened[2]))
            block = Block(page=page, line=number, language=opened[3].strip(), text=body, notes=tuple(notes))
            if follows and block.language == "text" and found and found[-1].language == "sh":
                if block.note("not compared") is None:
                    found[-1] = _showing(found[-1], body)
                follows = False
            else:
                follows = True
            found.append(block)
            notes = []
        elif noted := _NOTE.match(line):
            notes.append((noted[1], noted[2] or ""))
        elif line.strip():
            notes, follows = [], False
    return found


def _body(lines: Iterator[tuple[int, str]], *, indent: int, fence: str) -> Iterator[str]:
    for _, line in lines:
        if line.strip() and not line.strip().strip(fence[0]) and len(line.strip()) >= len(fence):
            return
        yield line[indent:] if not line[:indent].strip() else line


def _showing(block: Block, shown: str) -> Block:
    return Block(
        page=block.page,
        line=block.line,
        language=block.language,
        text=block.text,
        notes=block.notes,
        shown=shown,
    )


def commands(text: str) -> list[str]:
    """The commands of a block, each as bash takes it: with its here-document, and over as many lines as it has."""
    found: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        command = line
        while command.endswith("\\") or _words(command) is None:
            command += "\n" + _next(lines, command)
        for _, word in _HEREDOC.findall(line):
            while command.rpartition("\n")[2].strip() != word:
                command += "\n" + _next(lines, command)
        if _words(command):
            found.append(command)
    return found


def _next(lines: Iterator[str], command: str) -> str:
    for line in lines:
        return line
    raise ValueError(f"the command does not end: {command}")


def _words(command: str) -> list[str] | None:
    """The words of a command up to its here-document; None while a quote is open."""
    try:
        return shlex.split(_HEREDOC.split(command, maxsplit=1)[0], comments=True)
    except ValueError:
        return None


def is_up(command: str) -> bool:
    """Whether it starts the system, and does not end by itself."""
    return bool(_UP.match(command))


def called(command: str) -> Iterator[list[str]]:
    """Each call of `penstock` in a command, as its arguments; a redirection or a pipe ends it."""
    words = shlex.shlex(command.partition("<<")[0], posix=True, punctuation_chars=True)
    words.commenters = "#"
    words.whitespace_split = True
    call: list[str] | None = None
    for word in words:
        if word == "penstock" and call is None:
            call = []
        elif call is not None and re.fullmatch(r"[();<>|&]+", word):
            yield call
            call = None
        elif call is not None:
            call.append(word)
    if call is not None:
        yield call


def files_read(command: str) -> Iterator[str]:
    """The files that a command takes as they are: what is copied, a script, a body that is sent."""
    words = shlex.split(command.partition("<<")[0], comments=True)
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    match words:
        case ["cp" | "mv", *named]:
            yield from [one for one in named if not one.startswith("-")][:-1]
        case ["python" | "python3", script, *_] if script.endswith(".py"):
            yield script
        case ["penstock", "send", _, body, *_]:
            yield body
        case ["penstock", "preview" | "init-dataset", file, *_]:
            yield file


def missing(shown: str, printed: str) -> str | None:
    """The first line that the page shows and nobody printed after those before it; None where there is none.

    Of a line its first two words count, with every number and every path as any other; dots stand for anything.
    """
    there = iter([_gist(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        if line.strip(" .…") and _gist(line) not in there:
            return line
    return None


def _gist(line: str) -> tuple[str, ...]:
    words = re.sub(r"\d[\d.,:]*", "0", line).split()[:2]
    return tuple("/" if "/" in word else word for word in words)
