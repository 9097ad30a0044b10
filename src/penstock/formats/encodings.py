"""Text in other encodings than UTF-8, as UTF-8: by its mark, as declared, or where there is no doubt.

No guess is made of what a text's language makes likely: a wrong one would load wrong names and tell nobody.
"""

from __future__ import annotations

import codecs
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import Unreadable

CHUNK = 4 * 1024 * 1024

# The longer ones first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What a file that is not UTF-8 most often is, and what else it could be.
_WESTERN, _OTHERS = "windows-1252", ("windows-1250", "iso-8859-15", "windows-1254")
# Letters, € and typographic marks that these have in common, where they stand as in words. DOS code pages and Mac
# Roman have other characters at these places, Cyrillic ones have rows of letters there.
_LETTERS = "".join(
    character
    for character in (bytes([code]).decode(_WESTERN) for code in range(0xC0, 0x100))
    if character.isalpha() and all(character.encode(_WESTERN).decode(other) == character for other in _OTHERS)
)
_SMALL = "".join(letter for letter in _LETTERS if letter.islower())
_CERTAIN = re.compile(
    rf"(?<![^\x00-\x7f])[{_LETTERS}](?![^\x00-\x7f])"
    rf"|(?<=[A-Za-z])[{_SMALL}]{{2}}(?![^\x00-\x7f])|(?<![^\x00-\x7f])[{_SMALL}]{{2}}(?=[A-Za-z])"
    r"|(?<![A-Za-z\x80-\uffff])[“„‘‚€](?!\s)|(?<!\s)[”’“‘](?![A-Za-z\x80-\uffff])"
    r"|(?<=[A-Za-z])’(?=(s|t|d|m|re|ve|ll)(?![A-Za-z]))"
    r"|(?<=\s)[–—](?=\s)|(?<=[0-9])–(?=[0-9])|(?<=[0-9])\s?€(?![A-Za-z])|(?<=[A-Za-z.\s])…(?=\W|$)"
)
_SHOWN = 30


def is_utf8(name: str | None) -> bool:
    """Whether a declared encoding is UTF-8, or none is declared."""
    return name is None or codecs.lookup(name).name in ("utf-8", "utf-8-sig")


@contextmanager
def utf8_file(path: Path, declared: str | None) -> Iterator[Path]:
    """The file itself where it is to be read as UTF-8, or a copy of it in UTF-8. Raises Unreadable."""
    with path.open("rb") as file:
        head = file.read(4)
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    encoding = marked or declared or (None if _is_valid(path) else _certain(path))
    if is_utf8(encoding):
        yield path
        return
    assert encoding is not None
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        copy = Path(folder) / "utf8"
        _transcode(path, copy, encoding)
        yield copy


def _transcode(path: Path, copy: Path, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    at = 0
    with path.open("rb") as source, copy.open("wb") as target:
        while True:
            chunk = source.read(CHUNK)
            try:
                target.write(decoder.decode(chunk, final=not chunk).encode())
            except UnicodeError as error:
                place = at + error.start + 1 if isinstance(error, UnicodeDecodeError) else at + 1
                raise Unreadable(f"not {encoding} text: near byte {place}: {getattr(error, 'reason', error)}") from None
            if not chunk:
                return
            at += len(chunk)


def _is_valid(path: Path) -> bool:
    """Whether it is UTF-8; also when it holds NUL bytes, and is no text of one byte a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(CHUNK):
                if b"\0" in chunk:
                    return True  # which is said of it where it is checked
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            # A NUL behind it means that it is no text at all.
            return b"\0" in chunk or any(b"\0" in rest for rest in iter(lambda: file.read(CHUNK), b""))
    return True


def _certain(path: Path) -> str:
    """The encoding, where others that are likely would give the same text. Raises Unreadable."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.isascii():
                continue
            try:
                text = line.decode(_WESTERN)
            except UnicodeDecodeError:
                raise Unreadable(
                    f"not UTF-8 text, nor {_WESTERN}, in line {number}; say what it is: csv=Csv(encoding=…)"
                ) from None
            left = _CERTAIN.sub("", text)
            if not left.isascii() and (found := re.search(r"[^\x00-\x7f]", _CERTAIN.sub(_blank, text))):
                raise Unreadable(_doubt(line, text, found.start(), number))
    return _WESTERN


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def _doubt(line: bytes, text: str, place: int, number: int) -> str:
    begin = max(0, place - _SHOWN // 2)
    part = slice(begin, begin + _SHOWN)
    shown = [f"{text[part].strip()!r} as {_WESTERN}"]
    other = line.decode(_OTHERS[0], errors="replace")
    names = [_WESTERN]
    if other[part] != text[part]:
        shown.append(f"{other[part].strip()!r} as {_OTHERS[0]}")
        names.append(_OTHERS[0])
    said = ", ".join(f"csv=Csv(encoding={name!r})" for name in names)
    return f"not UTF-8 text; line {number} has {', '.join(shown)}: say which it is, of these or others: {said}"
