"""An object's bytes as a plain local file: unpacked, and checked to be text where text is expected."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from penstock.errors import Unreadable
from penstock.formats.packed import packed_otherwise, packing, packing_of, unpacked

CHUNK = 4 * 1024 * 1024
# A small file may unpack to anything; more than this is taken for rubbish.
LARGEST_UNPACKED = 8 * 1024**3
# By so many bytes UTF-16 is told from other things with NUL bytes.
_LOOKED_AT = 256


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """The file itself, or its unpacked copy when it is compressed by its first bytes. Raises Unreadable if broken."""
    kind = packing_of(path)
    if kind is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        copy = Path(folder) / "plain"
        with unpacked(path, kind) as source, copy.open("wb") as target:
            size = 0
            while chunk := source.read(CHUNK):
                size += len(chunk)
                if size > LARGEST_UNPACKED:
                    raise Unreadable(f"the {kind} unpacks to more than {LARGEST_UNPACKED} bytes")
                target.write(chunk)
        if (inner := packing_of(copy)) is not None:
            raise Unreadable(f"packed twice: the {kind} holds a {inner}; unpack it once")
        yield copy


def unpack_small(path: Path, most: int) -> bool:
    """Whether the file is not compressed; one of at most `most` bytes of other things is replaced by these.

    What is wrong with a compressed one is left to be found by `plain_file`.
    """
    kind = packing_of(path)
    if kind is None:
        return True
    content = b""
    try:
        with unpacked(path, kind) as source:
            while len(content) <= most and (chunk := source.read(most + 1 - len(content))):
                content += chunk
    except Unreadable:
        return False
    if len(content) > most or packing(content) is not None:
        return False
    copy = path.with_name(f"{path.name}.plain")
    copy.write_bytes(content)
    copy.replace(path)
    return True


@contextmanager
def text_file(path: Path, *, to_utf8: Callable[[Path], AbstractContextManager[Path]] = nullcontext) -> Iterator[Path]:
    """As `plain_file`, without byte order mark, and with one kind of line end where CRLF and LF were mixed.

    `to_utf8` makes UTF-8 of other encodings. Raises Unreadable unless it is UTF-8 text without NUL bytes.
    """
    with plain_file(path) as unpacked_file, to_utf8(unpacked_file) as found:
        with found.open("rb") as file:
            marks, mixed = _check_text(file)
        if not marks and not mixed:
            yield found
            return
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            copy = Path(folder) / "text"
            with found.open("rb") as source, copy.open("wb") as target:
                source.seek(len(codecs.BOM_UTF8) * marks)
                while chunk := source.read(CHUNK):
                    if chunk.endswith(b"\r"):
                        chunk += source.read(1)
                    target.write(chunk.replace(b"\r\n", b"\n") if mixed else chunk)
            yield copy


def _check_text(file: IO[bytes]) -> tuple[int, bool]:
    """How many byte order marks it begins with (files put together have more), and whether line ends are mixed."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    marks, at, carriage, both, ends = 0, 0, False, 0, 0
    while True:
        chunk = file.read(CHUNK)
        if at == 0:
            _refuse_other_text(chunk)
            while chunk.startswith(codecs.BOM_UTF8, marks * len(codecs.BOM_UTF8)):
                marks += 1
        if (nul := chunk.find(b"\0")) >= 0:
            raise Unreadable(f"not text: a NUL byte at byte {at + nul + 1}")
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise Unreadable(f"not UTF-8 text: {error.reason} at byte {at - pending + error.start + 1}") from None
        if not chunk:
            return marks, 0 < both < ends
        both += chunk.count(b"\r\n") + (carriage and chunk.startswith(b"\n"))
        ends += chunk.count(b"\n")
        carriage = chunk.endswith(b"\r")
        at += len(chunk)


def _refuse_other_text(head: bytes) -> None:
    if kind := packed_otherwise(head):
        raise Unreadable(f"not text but {kind}; unpack it, or pack it with gzip, zstd or bzip2")
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise Unreadable("not UTF-8 text but UTF-32; save it as UTF-8")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable("not UTF-8 text but UTF-16; save it as UTF-8")
    first = head[:_LOOKED_AT]
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        here, there = first[place::2], first[1 - place :: 2]
        if len(first) >= 8 and 0 not in there and here.count(0) > len(here) // 2:
            raise Unreadable(
                f"not UTF-8 text; it looks like {name} without a byte order mark: save it as UTF-8, or, "
                f"where it is CSV, say so: csv=Csv(encoding={name!r})"
            )
