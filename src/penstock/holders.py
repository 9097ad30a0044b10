"""Names the processes that hold a lock, for messages that say whom to end."""

from __future__ import annotations

from pathlib import Path

_LOCKS = Path("/proc/locks")
_LONGEST_COMMAND = 100


def holders(inode: int) -> list[str]:
    """Who holds a flock on the file with this inode. Only Linux tells: elsewhere nobody is named."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return []
    found = set()
    for line in lines:
        # 1: FLOCK  ADVISORY  READ 4242 08:01:131 0 EOF
        fields = line.split()
        if fields[1] == "FLOCK" and fields[-3].rpartition(":")[2] == str(inode):
            found.add(process(fields[-4]))
    return sorted(found)


def process(pid: str) -> str:
    """A process by its number and, while it runs and may be seen, its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
    except OSError:  # it ended, and what it forked lives on
        words = []
    return f"process {pid}" + (f" ({' '.join(words)[:_LONGEST_COMMAND]})" if words else "")
