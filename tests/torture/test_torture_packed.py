"""What is compressed: whole, cut, damaged, twice, in several members, or far larger than it looks."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.formats import plain
from tests.torture.trying import tried

BODY = b"id,name\n" + b"".join(b"%d,n%d\n" % (number, number) for number in range(2000))


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd}


@pytest.fixture(params=PACKERS)
def suffix(request: pytest.FixtureRequest) -> str:
    """Each kind in turn."""
    return str(request.param)


def test_several_members_are_one_file(tmp_path: Path, suffix: str) -> None:
    """As `cat a.gz b.gz` writes it; and by its first bytes, whatever it is called."""
    pack = PACKERS[suffix]
    content = pack(BODY) + pack(b"") + pack(b"2000,n2000\n")
    for name in (f"x.csv.{suffix}", "x.csv"):
        found = tried(tmp_path, name, content)
        assert (found.state, found.types["id"], found.rejected) == ("loaded", "BIGINT", [])
        assert found.rows[:1] == [(0, "n0")]


@pytest.mark.parametrize("keep", [0.5, -1, -8, 5], ids=["half", "all but a byte", "no checksum", "five bytes"])
def test_what_was_cut_off_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    """None of its rows is loaded, and the reason says which compression is broken."""
    whole = PACKERS[suffix](BODY)
    part = whole[: int(len(whole) * keep) if keep == 0.5 else int(keep)]
    found = tried(tmp_path, f"x.csv.{suffix}", part)
    assert (found.state, found.rows) == ("quarantined", [])
    assert found.reason.startswith("broken ")


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
def test_a_damaged_byte_is_refused(tmp_path: Path, suffix: str) -> None:
    """By their checksum; zstd's is an option that few writers take."""
    whole = PACKERS[suffix](BODY)
    middle = len(whole) // 2
    found = tried(tmp_path, f"x.csv.{suffix}", whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    assert (found.state, found.rows) == ("quarantined", [])
    assert found.reason.startswith("broken ")


def test_nothing_inside_is_empty(tmp_path: Path, suffix: str) -> None:
    """It is no fault."""
    assert tried(tmp_path, f"x.csv.{suffix}", PACKERS[suffix](b"")).state == "empty"


def test_what_is_packed_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    """The reason says so."""
    pack = PACKERS[suffix]
    assert "packed twice" in tried(tmp_path, f"x.csv.{suffix}", pack(pack(BODY))).reason


def test_a_bomb_is_given_up_at_the_bound(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than the bound is refused without being written further."""
    monkeypatch.setattr(plain, "LARGEST_UNPACKED", 20_000_000)
    bomb = PACKERS[suffix](b"0" * 60_000_000)
    assert len(bomb) < 100_000
    found = tried(tmp_path, f"x.csv.{suffix}", bomb)
    assert found.state == "quarantined"
    assert "unpacks to more than 20000000 bytes" in found.reason
