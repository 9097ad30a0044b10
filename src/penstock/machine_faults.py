"""Which of DuckDB's errors are the machine's fault and not the data's: disk, memory, permissions.

DuckDB has no error number to ask for. It quotes the system's words, and a failed commit is no IOException.
"""

from __future__ import annotations

import errno
import os
import re

import duckdb

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CODES = {
    os.strerror(code): code
    for code in (
        *_FULL,
        *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
        *(errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTDIR, errno.EISDIR, errno.EBUSY, errno.ETIMEDOUT),
    )
}
_WORDS = re.compile("|".join(map(re.escape, _CODES)), re.IGNORECASE)
_BY_WORDS = {words.lower(): code for words, code in _CODES.items()}
# The others quote values, in which anything may stand.
_QUOTES_THE_SYSTEM = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException, duckdb.InternalException)


def machine_fault(error: BaseException) -> OSError | MemoryError | None:
    """What the machine did, as Python has it; None where the data or somebody's SQL may be the cause."""
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, duckdb.OutOfMemoryException):
        return MemoryError(f"memory, or room to spill it, ran out: {first_line(error)}")
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if isinstance(error, (*_QUOTES_THE_SYSTEM, OSError)) and (found := _WORDS.search(str(error))):
        return OSError(_BY_WORDS[found[0].lower()], first_line(error))
    return None


def raise_machine_fault(error: Exception) -> None:
    """Raise OSError or MemoryError where that is what the error is; return otherwise."""
    fault = machine_fault(error)
    if fault is not None:
        raise fault from (error if fault is not error else None)


def advice(fault: OSError | MemoryError) -> str:
    """What to do about it."""
    if isinstance(fault, MemoryError) or fault.errno == errno.ENOMEM:
        return "free memory, or load less at once"
    if fault.errno in _FULL:
        return "make room on its disk"
    return "see to its disk and who may read and write there"


def first_line(error: BaseException) -> str:
    """An error's message without DuckDB's explanations."""
    return str(error).strip().split("\n", 1)[0]
