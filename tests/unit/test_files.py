"""What the folder sensor asks of real files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import Refused
from penstock.sensors.files import (
    fingerprint,
    fingerprint_at,
    key_of,
    open_regular,
    outwait_tick,
    printable,
    stamp_clock,
    walk,
    writer_of,
)
from penstock.sensors.settle import Print, Writer


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    """A file in folders below the root is read, and its fingerprint is the same by handle and by path."""
    path = tmp_path / "a" / "b" / "x.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"data")
    with open_regular(tmp_path, path) as file:
        assert file.read() == b"data"
        assert fingerprint(file) == fingerprint_at(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), "symlink"),
        (lambda path: path.symlink_to("/etc"), "symlink"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "symlink"),
        (os.mkfifo, "no regular file"),
        (make_socket, "no regular file"),
    ],
    ids=["symlink", "symlink-to-folder", "dangling", "fifo", "socket"],
)
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    """Symlinks, FIFOs and sockets are refused with the reason, and none of them blocks."""
    path = tmp_path / "x.csv"
    make(path)
    with pytest.raises(Refused, match=reason):
        open_regular(tmp_path, path)


def test_a_file_behind_a_symlinked_folder_is_not_there(tmp_path: Path) -> None:
    """A symlink is not followed in the middle of a path either."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.csv").write_bytes(b"secret")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "link").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        open_regular(inbox, inbox / "link" / "x.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder where a file was expected is told apart from a file that cannot be taken."""
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path, tmp_path / "x.csv")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Whatever comes of it, opening leaves nothing open behind it."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "link").symlink_to("/etc")
    before = len(os.listdir("/proc/self/fd"))
    for name, error in (("d/link", Refused), ("d/e", IsADirectoryError), ("d/none", FileNotFoundError)):
        with pytest.raises(error):
            open_regular(tmp_path, tmp_path / name)
    with pytest.raises(NotADirectoryError):
        open_regular(tmp_path, tmp_path / "d" / "link" / "hostname")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_kernel_tells_of_writers(tmp_path: Path) -> None:
    """A file that somebody has open for writing has a writer, until the handle is closed; a reader is none."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    with path.open("rb"), open_regular(tmp_path, path) as file:
        with path.open("ab"):
            assert writer_of(file) is Writer.SOME
        assert writer_of(file) is Writer.NONE
        with path.open("ab"):
            pass  # and no lease is left that would hold up a writer


OPENED_DURING_THE_LEASE = """
import fcntl, os, pathlib, sys
from penstock.sensors import files
path = pathlib.Path(sys.argv[1])
real = fcntl.fcntl
def fcntl_(fd, what, arg=0):
    answer = real(fd, what, arg)
    if what == fcntl.F_SETLEASE and arg == fcntl.F_RDLCK:
        try:
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except BlockingIOError:
            print("the writer met the lease", flush=True)
    return answer
files.fcntl.fcntl = fcntl_
print(files.writer_of(files.open_regular(path.parent, path)))
"""


def test_a_writer_that_comes_while_the_lease_is_held_does_not_end_the_sensor(tmp_path: Path) -> None:
    """The kernel tells the lease's holder of a writer by a signal, which must not be one that kills."""
    path = tmp_path / "x"
    path.write_bytes(b"data")
    ended = subprocess.run(
        [sys.executable, "-c", OPENED_DURING_THE_LEASE, str(path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "the writer met the lease\nWriter.NONE\n"), ended.stderr


def test_nothing_there(tmp_path: Path) -> None:
    """What is not there, or lies below something that is no folder, has no fingerprint."""
    (tmp_path / "file").write_bytes(b"")
    assert fingerprint_at(tmp_path / "x") is None
    assert fingerprint_at(tmp_path / "file" / "x") is None


def test_walk(tmp_path: Path) -> None:
    """A walk gives every entry but the temporary ones, and a symlink as an entry, without following it."""
    for name in ("sales/a.csv", "sales/deep/er/b.csv", "sales/.hidden/c.csv", "sales/d.tmp", "sales/up.part/e.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sales" / "link").symlink_to("/etc")
    assert sorted(str(path.relative_to(tmp_path)) for path in walk(tmp_path)) == [
        "sales/a.csv",
        "sales/deep/er/b.csv",
        "sales/link",
    ]
    assert [path.name for path in walk(tmp_path, tmp_path / "sales" / "deep")] == ["b.csv"]
    assert list(walk(tmp_path, tmp_path / "nothing")) == []


def test_a_folder_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder without permission is named in the log, and the walk goes on with the others."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_bytes(b"")
    real = os.scandir

    def scandir(folder: Path | str) -> object:
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert sorted(path.parent.name for path in walk(tmp_path)) == ["a", "c"]
    assert "b cannot be read: Permission denied" in caplog.text


def test_key_of(tmp_path: Path) -> None:
    """The key is the path below the inbox."""
    assert key_of(tmp_path, tmp_path / "sales" / "ä b+c.csv") == "sales/ä b+c.csv"
    assert len(key_of(tmp_path, tmp_path / "/".join(["x" * 127] * 8)).encode()) == 1023


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"sales/caf\xe9.csv", "UTF-8"),
        (b"sales/" + b"/".join([b"x" * 200] * 6), "1,024 bytes"),
        (b"sales/" + "ä".encode() * 510, "1,024 bytes"),
        (b"sales/a\nb.csv", "control character"),
        (b"sales/a\x7fb.csv", "control character"),
        (b"sales/a\\b.csv", "backslash"),
    ],
)
def test_a_name_that_cannot_be_a_key_is_refused(tmp_path: Path, name: bytes, reason: str) -> None:
    """A refusal says what is wrong with the name."""
    with pytest.raises(Refused, match=reason):
        key_of(tmp_path, tmp_path / os.fsdecode(name))


def test_printable(tmp_path: Path) -> None:
    """Any name can be shown and stored, and two names that are not UTF-8 stay two."""
    shown = [printable(tmp_path, tmp_path / os.fsdecode(name)) for name in (b"caf\xe9", b"caf\xe8", "café".encode())]
    assert shown == ["caf\\xe9", "caf\\xe8", "café"]
    assert all(name.encode() for name in shown)


def test_a_write_after_the_tick_always_shows(tmp_path: Path) -> None:
    """However fast one write of the same size follows the other, the fingerprint of a file tells them apart."""
    path = tmp_path / "x.csv"
    for number in range(20):
        path.write_bytes(b"%02d" % number)
        found = fingerprint_at(path)
        assert found is not None
        outwait_tick(found, stamp_clock)
        with path.open("r+b") as file:
            file.write(b"xx")
        assert fingerprint_at(path) != found


@pytest.mark.parametrize(("stamps", "asked"), [([5, 5, 5, 4_000_005], 4), ([4_000_005], 1), ([1], 1), ([5] * 99, 40)])
def test_a_tick_is_waited_out(stamps: list[int], asked: int) -> None:
    """The clock that stamps files is asked until it is past the file's mtime, which may lie in the future, or stops."""
    left = list(stamps)
    outwait_tick(Print(inode=1, size=1, mtime_ns=5), lambda: left.pop(0))
    assert len(stamps) - len(left) == asked
