"""What the folder sensor asks the operating system about a file of the inbox."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from penstock.errors import Refused
from penstock.sensors.settle import Print, Writer, is_same_tick, is_temporary

log = logging.getLogger(__name__)

# What F_SETLEASE answers where leases are not to be had: another's file, a file system without them.
_CANNOT_TELL = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


# The clock by which Linux stamps mtimes: it moves in ticks, and stands still between them. Python has no name for it.
_CLOCK_REALTIME_COARSE = 5


def stamp_clock() -> int:
    """What a file that is written now gets as its mtime, in nanoseconds."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def open_regular(root: Path, path: Path) -> BinaryIO:
    """Open a file below `root` for reading; no symlink below `root` is followed, neither as file nor as folder.

    Raises Refused for what is no regular file, NotADirectoryError where a folder of the path is none (or a symlink),
    IsADirectoryError.
    """
    *folders, name = path.relative_to(root).parts
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: a FIFO without a writer must not hang the sensor.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(
                "it is a symlink, and only files that lie in the inbox are read: copy the file here"
            ) from None
        if error.errno == errno.ENXIO:
            raise Refused("it is no regular file") from None
        raise
    finally:
        os.close(folder)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        raise Refused("it is no regular file")
    return os.fdopen(descriptor, "rb")


def fingerprint(file: BinaryIO) -> Print:
    """What the open file is now."""
    found = os.fstat(file.fileno())
    return Print(inode=found.st_ino, size=found.st_size, mtime_ns=found.st_mtime_ns)


def fingerprint_at(path: Path) -> Print | None:
    """What lies at the path now, symlinks not followed; None: nothing."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Print(inode=found.st_ino, size=found.st_size, mtime_ns=found.st_mtime_ns)


def outwait_tick(found: Print, stamps: Callable[[], int]) -> None:
    """Wait until a write would show in the mtime: a few milliseconds, and at most 20.

    That is waited out here, and not by another look later, because so short a wait must not change the files' order.
    """
    for _ in range(40):
        if not is_same_tick((stamps() - found.mtime_ns) / 1e9):
            return
        time.sleep(0.0005)


def writer_of(file: BinaryIO) -> Writer:
    """Whether anybody has the file open for writing: a read lease is granted only when nobody has."""
    # Who opens the file for writing while the lease is held makes the kernel signal its holder: by SIGIO, which would
    # end this process, unless another signal is named. SIGURG is ignored where nobody asks for it.
    fcntl.fcntl(file.fileno(), fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return Writer.SOME
        if error.errno in _CANNOT_TELL:
            return Writer.UNKNOWN
        raise
    fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE


def walk(root: Path, below: Path | None = None) -> Iterator[Path]:
    """Every entry under the inbox that could be meant for penstock, sorted within its folder; symlinks are entries.

    Temporary names, and folders with such names, are passed over. A folder that vanishes meanwhile is no error, and one
    that cannot be read does not hide the others.
    """
    pending = [below or root]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            log.warning("the folder %s cannot be read: %s", printable(root, folder), error.strerror)
            continue
        for entry in entries:
            if is_temporary(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            else:
                yield Path(entry.path)


def key_of(root: Path, path: Path) -> str:
    """The object key of a file: its path below the inbox. Raises Refused when that cannot be an S3 key."""
    key = path.relative_to(root).as_posix()
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise Refused("its name is not UTF-8, which an S3 key must be: rename it") from None
    if len(encoded) > 1024:
        raise Refused("its path is longer than the 1,024 bytes an S3 key may have: shorten it")
    if any(character < " " or character == "\x7f" for character in key) or "\\" in key:
        raise Refused("its name holds a control character or a backslash: rename it")
    return key


def printable(root: Path, path: Path) -> str:
    """The path below the inbox in a form that can be stored and shown, whatever its bytes are."""
    return os.fsencode(path.relative_to(root)).decode(errors="backslashreplace")


def is_there(root: Path, shown: str) -> bool:
    """Whether a path that `printable` gave is still in the inbox; what cannot be told is.

    It may stand for itself or for bytes that are no UTF-8. One that mixes both seems gone, and is seen anew.
    """
    meant = shown.encode()
    for name in (meant, re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), meant)):
        try:
            os.lstat(os.fsencode(root) + b"/" + name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        except OSError:
            pass
        return True
    return False
