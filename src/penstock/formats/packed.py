"""Compressed files: which kind they are by their first bytes, and what they hold."""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from penstock.errors import Unreadable

# RFC 1952, RFC 8878, and bzip2's own head: its block's magic is pi and that of the end, where nothing was packed, the
# square root of pi. Without them it would be the text "BZh…"; what ends within them was cut off.
_MAGICS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90|(1(A(Y(&S?)?)?)?|\x17(r(E(8P?)?)?)?)\Z)"),
}
# What people pack with, too, and is not unpacked here.
_OTHERS = {
    b"PK\x03\x04": "a zip",
    b"\xfd7zXZ\0": "an xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z",
    b"Rar!\x1a\x07": "a rar",
    b"\x04\x22\x4d\x18": "an lz4",
}
SUFFIXES = (".gz", ".zst", ".zstd", ".bz2")
_HEAD_BYTES = 16


def packing(head: bytes) -> str | None:
    """How a file that begins so is compressed: `gzip`, `zstd`, `bzip2`, or not at all."""
    return next((name for name, magic in _MAGICS.items() if magic.match(head)), None)


def packed_otherwise(head: bytes) -> str | None:
    """What a file that begins so is packed as, in a way that is not unpacked: `a zip`."""
    return next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)


def packing_of(path: Path) -> str | None:
    """As `packing`, of a file."""
    with path.open("rb") as file:
        return packing(file.read(_HEAD_BYTES))


def bare_name(name: str) -> str:
    """A name in lower case without the suffix of a compression."""
    name = name.lower()
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


class Unpacked:
    """Reads what a compressed file holds, several streams behind one another too. `read` raises Unreadable."""

    def __init__(self, stream: Any, kind: str) -> None:
        self._stream = stream
        self._kind = kind

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end."""
        try:
            return cast(bytes, self._stream.read(size))
        except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
            raise Unreadable(f"broken {self._kind}: {error}") from None
        except OSError as error:
            if error.errno is not None:  # the disk, and not the data
                raise
            raise Unreadable(f"broken {self._kind}: {error}") from None


@contextmanager
def unpacked(path: Path, kind: str) -> Iterator[Unpacked]:
    """What a file holds that is compressed as `kind` says."""
    with _OPENERS[kind](path) as stream:
        yield Unpacked(stream, kind)


def _open_zstd(path: Path) -> Any:
    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


_OPENERS: Mapping[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "zstd": _open_zstd}
