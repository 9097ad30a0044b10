"""Compressed objects: gzip, zstd and bzip2 are read as what they hold, and broken ones are told."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.packed import bare_name, packing
from penstock.formats.plain import plain_file, unpack_small

DATASET = Dataset(name="d")
TEXT = b"a,b\n1,2\n3,4\n"


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACKERS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("gzip", gzip.compress, ".gz"),
    ("zstd", zstd, ".zst"),
    ("bzip2", bz2.compress, ".bz2"),
]
each = pytest.mark.parametrize(("kind", "pack", "suffix"), PACKERS, ids=[name for name, _, _ in PACKERS])


@each
def test_what_is_packed_is_read(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], suffix: str) -> None:
    """By the suffix beneath the compression's."""
    path = tmp_path / "object"
    path.write_bytes(pack(TEXT))
    schema = formats.infer(path, f"d/x.CSV{suffix}", DATASET)
    result = formats.read(path, f"d/x.CSV{suffix}", DATASET, schema)
    assert result.rows.select(["a", "b"]).to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@each
def test_the_first_bytes_say_it_and_not_the_name(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    """A file called .gz that is none is plain, and one that is packed need not be called so."""
    path = tmp_path / "object"
    path.write_bytes(TEXT)
    assert formats.infer(path, f"d/x.csv{suffix}", DATASET).columns
    path.write_bytes(pack(TEXT))
    assert packing(path.read_bytes()) == kind
    assert formats.infer(path, "d/x.csv", DATASET).columns


@each
def test_several_streams_are_one_file(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], suffix: str) -> None:
    """As who appends to a compressed log writes them."""
    path = tmp_path / "object"
    path.write_bytes(pack(TEXT[:8]) + pack(TEXT[8:]))
    with plain_file(path) as found:
        assert found.read_bytes() == TEXT
    assert unpack_small(path, 1000)
    assert path.read_bytes() == TEXT


@each
def test_a_broken_one_says_so(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], suffix: str) -> None:
    """Cut off at any place, or changed in the middle where it has a sum, which zstd may lack."""
    path = tmp_path / "object"
    whole = pack(TEXT * 500)
    changed = [whole[:20] + bytes([whole[20] ^ 255, whole[21] ^ 255]) + whole[22:]] if kind != "zstd" else []
    for content in [whole[:length] for length in range(16, len(whole), 7)] + changed:
        path.write_bytes(content)
        with pytest.raises(Unreadable, match=f"broken {kind}"), plain_file(path):
            pass
        assert not unpack_small(path, 10**6)
        assert path.read_bytes() == content, "what is wrong with it is found when it is read"


@each
def test_a_small_one_is_left_where_it_holds_much(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    """It is read from the disk then."""
    path = tmp_path / "object"
    path.write_bytes(pack(bytes(2_000_000)))
    assert not unpack_small(path, 1_000_000)
    assert packing(path.read_bytes()) == kind


@pytest.mark.parametrize("content", [b"BZh,header\n1,2\n", b"BZh9", zlib.compress(TEXT), b"", b"\x28\xb5"])
def test_what_only_begins_like_one_is_plain(content: bytes) -> None:
    """A header may begin with BZh."""
    assert packing(content) is None


@pytest.mark.parametrize(
    ("name", "bare"),
    [("a.csv.GZ", "a.csv"), ("a.csv.zst", "a.csv"), ("a.zstd", "a"), ("a.bz2", "a"), ("a.csv", "a.csv"), (".gz", "")],
)
def test_the_suffix_beneath(name: str, bare: str) -> None:
    """One compression is taken off, and no more."""
    assert bare_name(name) == bare
    assert bare_name(f"{name}.gz") == name.lower()
